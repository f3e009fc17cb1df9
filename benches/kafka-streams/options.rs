//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::side::SideArgs;
use crate::workload::Workload;

#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compares.
    Compare(Options),
    /// millstream's side; started by `compare`.
    #[command(hide = true)]
    Side(SideArgs),
}

#[derive(Debug, Clone, Parser)]
pub(crate) struct Options {
    /// What to measure: A to J; all when none is named.
    pub(crate) workloads: Vec<Workload>,
    /// Times that each side runs.
    #[arg(long, default_value_t = 3)]
    pub(crate) pairs: usize,
    /// Records of the input of A, B, C, D and I; changes of E.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// Records of an input of which each side works off once before anything is measured; keys of one
    /// that each side restores, for G.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) warm_up: u64,
    /// Accounts that the records of A to F are about.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) accounts: usize,
    /// Keys of the store in G and I [5000000] and in H [1000000].
    #[arg(long)]
    keys: Option<usize>,
    /// Partitions of every topic, but in J.
    #[arg(long, default_value_t = 3)]
    pub(crate) partitions: i32,
    /// Partitions of every topic in J.
    #[arg(long, default_value_t = 200)]
    pub(crate) idle_partitions: i32,
    /// Decides the input.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Records per second of F and H.
    #[arg(long, default_value_t = 1000)]
    pub(crate) rate: u32,
    /// Seconds that F measures, after half as many that it does not; half of them before H kills.
    #[arg(long, default_value_t = 40)]
    pub(crate) seconds: u64,
    /// Seconds that J measures.
    #[arg(long, default_value_t = 60)]
    pub(crate) idle_seconds: u64,
    /// Leave out what else Kafka Streams is run with: one Kafka Streams, one millstream.
    #[arg(long)]
    pub(crate) no_variants: bool,
    /// CPUs that both sides are pinned to, as for taskset; all when absent.
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// The class path of Kafka Streams' side.
    #[arg(long)]
    pub(crate) class_path: String,
    /// Flags of its JVM, in one word.
    #[arg(long, default_value = "-Xmx1g", allow_hyphen_values = true)]
    pub(crate) jvm_flags: String,
    /// The command as it was typed, for the page.
    #[arg(
        long,
        hide = true,
        default_value = "scripts/compare",
        allow_hyphen_values = true
    )]
    pub(crate) command_line: String,
    /// Write sections and plots into this folder's `benchmarks.md` and `benchmarks/`.
    #[arg(long)]
    pub(crate) write_to: Option<PathBuf>,
    /// Write every run with its series of samples as JSON lines to this file.
    #[arg(long)]
    pub(crate) series: Option<PathBuf>,
}

impl Options {
    /// Returns how many keys the store of `workload` has before anything is measured.
    pub(crate) fn keys(&self, workload: Workload) -> usize {
        let default = match workload {
            Workload::Restore | Workload::Updates => 5_000_000,
            Workload::Recovery => 1_000_000,
            Workload::Balances
            | Workload::Stateless
            | Workload::Windowed
            | Workload::Joined
            | Workload::ForeignKey
            | Workload::Latency
            | Workload::Idle => 0,
        };
        self.keys.filter(|_| default > 0).unwrap_or(default)
    }

    /// Returns how many partitions the topics of `workload` have.
    pub(crate) const fn partitions(&self, workload: Workload) -> i32 {
        match workload {
            Workload::Idle => self.idle_partitions,
            _ => self.partitions,
        }
    }
}
