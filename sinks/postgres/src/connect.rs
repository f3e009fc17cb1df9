//! A connection: TLS, keep-alives, and what a session is set to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream::sink::SinkError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::errors::sink_error;
use crate::statements::quoted;

/// Unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is gone without a word is noticed after about this and three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Where the tables are.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) config: Config,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) schema: String,
    pub(crate) timeout: Duration,
}

// The configuration holds a password.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Connects. The connection ends when the client is dropped.
    pub(crate) async fn connect(&self, name: &str) -> Result<Client, SinkError> {
        let mut config = self.config.clone();
        config.application_name(name);
        config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE);
        config.tcp_user_timeout(self.timeout);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if let Some(path) = &self.password_file {
            let password = std::fs::read_to_string(path).map_err(|error| {
                SinkError::failed(format!("`password_file` {}: {error}", path.display()))
            })?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let client = if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await.map_err(|it| sink_error(&it))?;
            drive(connection);
            client
        } else {
            let tls = tls(self.ca_file.as_deref())?;
            let (client, connection) = config.connect(tls).await.map_err(|it| sink_error(&it))?;
            drive(connection);
            client
        };
        let millis = self.timeout.as_millis();
        // A session whose process has vanished gives its locks up; SIGKILL closes the socket, a
        // machine that is gone does not.
        let setup = format!(
            "SET search_path TO {}; SET statement_timeout TO {millis}; \
             SET idle_in_transaction_session_timeout TO {millis}; SET client_min_messages TO warning",
            quoted(&self.schema)
        );
        client
            .batch_execute(&setup)
            .await
            .map_err(|it| sink_error(&it))?;
        Ok(client)
    }
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // Whoever uses the client is told as well.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "PostgreSQL connection ended");
        }
    });
}

/// The provider is named, so that another crate's choice of one changes nothing here.
fn tls(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, SinkError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong =
                |error: String| SinkError::failed(format!("`ca_file` {}: {error}", path.display()));
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            // A machine without certificates may still reach a server without TLS.
            let (_added, _ignored) = roots.add_parsable_certificates(native.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SinkError::failed(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
