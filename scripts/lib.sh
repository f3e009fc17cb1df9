# shellcheck shell=bash
# What the scripts share: where things are, what the machine must have, how to say so.
# Sourced, never run. Callers have set -euo pipefail.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE_DIR=${MILLSTREAM_CACHE:-${HOME:?}/.cache/millstream}
export MILLSTREAM_CACHE=$CACHE_DIR

# One build folder for all clones of this project on this machine. The C++ libraries (RocksDB,
# librdkafka) take a quarter of an hour on two cores, and cargo finds their finished build by package
# and profile, not by where the clone lies: a fresh clone compiles only our own crates. Two clones
# that build at one time wait for each other's lock.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE_DIR/target}

# ccache's compiler links go first in PATH. It serves the cc crate and cmake alike, and where the
# folder is cleaned the C++ objects come back in a minute or two. CC and CXX would do the same, but
# cargo takes a change of them as a reason to rebuild everything that asked for them.
[[ ! -d /usr/lib/ccache ]] || [[ $PATH == /usr/lib/ccache:* ]] || export PATH=/usr/lib/ccache:$PATH

# One profile everywhere, for the same reason: another one would compile the C++ once more.
PROFILE=(--release)
export PROFILE

# g++ make cmake pkg-config: RocksDB and librdkafka; libclang: their bindings; curl, ssl, sasl, z:
# librdkafka's OAuth, TLS, Kerberos, gzip; ca-certificates: cargo's downloads; ccache: see above;
# python3: the demo's feed, the tests.
BUILD_PACKAGES=(
    g++ make cmake pkg-config clang libclang-dev libcurl4-openssl-dev libssl-dev libsasl2-dev
    zlib1g-dev ca-certificates ccache python3
)
# The JDK and Maven run Kafka itself and the foreign clients; shellcheck and python3-yaml serve the
# static checks; procps has ps, which scripts/kafka asks about its brokers; postgresql runs on a port
# of its own (scripts/postgres), never as the system's cluster; valgrind counts instructions.
TEST_PACKAGES=(openjdk-17-jdk-headless maven shellcheck python3-yaml procps postgresql valgrind)

say() { printf '%s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Prints those of the packages $@ that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s\n' "$package"
    done
}

# Prints those of the JDK and Maven packages that a tool of another origin does not stand in for.
without_what_serves() {
    local package
    for package in "$@"; do
        case $package in
            openjdk-*) javac -version 2>&1 | grep -Eq '^javac (1[7-9]|[2-9][0-9])' || printf '%s\n' "$package" ;;
            maven) command -v mvn >/dev/null || printf '%s\n' "$package" ;;
            *) printf '%s\n' "$package" ;;
        esac
    done
}

is_debian() {
    [[ -r /etc/os-release ]] && command -v apt-get >/dev/null &&
        (
            # shellcheck source=/dev/null
            . /etc/os-release
            [[ " ${ID:-} ${ID_LIKE:-} " == *" debian "* || " ${ID:-} ${ID_LIKE:-} " == *" ubuntu "* ]]
        )
}

# Installs what is missing of the Debian packages $@, and says so first.
need_packages() {
    local missing sudo=()
    if ! is_debian; then
        say "This is not Debian or Ubuntu, so nothing is installed. What is needed, by its Debian names:"
        say "  $*"
        say "and a Rust toolchain (rust-toolchain.toml names it). With all of it installed, set"
        say "MILLSTREAM_SKIP_PACKAGES=1 and run this again."
        exit 1
    fi
    mapfile -t missing < <(missing_packages "$@")
    mapfile -t missing < <(without_what_serves "${missing[@]}")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "Missing system packages, to be installed with apt-get:"
    say "  ${missing[*]}"
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null || die "not root and no sudo; as root: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    "${sudo[@]}" apt-get update -qq >&2 || die "apt-get update failed"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get install ${missing[*]} failed"
    [[ ! -d /usr/lib/ccache ]] || [[ $PATH == /usr/lib/ccache:* ]] || export PATH=/usr/lib/ccache:$PATH
}

# Sees to a cargo that can build the project.
need_cargo() {
    local wanted found
    [[ ! -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
    if ! command -v cargo >/dev/null; then
        say "cargo is missing. The way to get it is rustup, see https://rustup.rs:"
        say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        say "It takes Rust $wanted by itself, from rust-toolchain.toml."
        exit 1
    fi
    found=$(cd "$ROOT" && cargo --version 2>&1 | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    [[ -n $found ]] || die "\`cargo --version\` fails here; rustup toolchain install $wanted may mend it"
    # A cargo that does not come from rustup ignores rust-toolchain.toml.
    [[ $(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
        die "cargo is $found, the project needs $wanted or later (see rust-toolchain.toml); https://rustup.rs has it"
}

# need_setup build|test: everything a build, or the tests too, ask of the machine.
need_setup() {
    # First: without cargo nothing else is of use, and nothing has been installed yet.
    need_cargo
    if [[ ${MILLSTREAM_SKIP_PACKAGES:-} != 1 ]]; then
        case $1 in
            build) need_packages "${BUILD_PACKAGES[@]}" ;;
            test) need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ;;
        esac
    fi
    mkdir -p "$CARGO_TARGET_DIR"
    if [[ ! -d $CARGO_TARGET_DIR/release/build ]]; then
        say "First build into $CARGO_TARGET_DIR: RocksDB and librdkafka are compiled,"
        say "which takes about 15 minutes on two cores, once."
    fi
}

# Builds the daemon and sets DAEMON to its path. MILLSTREAM_DAEMON names a finished one instead.
build_daemon() {
    if [[ -n ${MILLSTREAM_DAEMON:-} ]]; then
        DAEMON=$MILLSTREAM_DAEMON
        [[ -x $DAEMON ]] || die "MILLSTREAM_DAEMON is $DAEMON, which cannot be executed"
        return 0
    fi
    (cd "$ROOT" && cargo build "${PROFILE[@]}" -p millstream-daemon) || die "the daemon does not build"
    # shellcheck disable=SC2034 # for the caller
    DAEMON=$CARGO_TARGET_DIR/release/millstream
}
