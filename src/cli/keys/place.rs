//! Which key file a command is about, and what the configuration around it says, as far as it can be read: an operator's
//! shell lacks the variables and certificates of the service, and must be able to revoke a key all the same.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::cli::ConfigFile;
use crate::config::{self, Config, System};

/// The options of all key commands.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    /// Configuration file [default: keygate.yaml, then /etc/keygate/keygate.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Key file; no configuration is read then
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "config")]
    keys: Option<PathBuf>,
}

/// Where the keys are.
#[derive(Debug)]
pub(super) struct Place {
    /// The key file.
    pub(super) key_file: PathBuf,
    /// The state file, where there is one.
    pub(super) state: Option<PathBuf>,
    /// The whole configuration, where it can be read from here.
    pub(super) config: Option<Box<Config>>,
}

impl PlaceArgs {
    /// Finds the files.
    pub(super) fn resolve(&self) -> Result<Place, Failure> {
        if let Some(file) = &self.keys {
            return Ok(Place { key_file: file.clone(), state: None, config: None });
        }
        let path = ConfigFile { file: self.config.clone() }.path();
        if !path.exists() {
            return Err(Failure::usage(format!(
                "there is no configuration at {}: name it with --config, or the key file itself with --keys",
                path.display()
            )));
        }
        if let Ok(loaded) = config::load(&path, &System) {
            let config = Box::new(loaded.config);
            let (key_file, state) = (config.key_file.clone(), config.state_path.clone());
            return Ok(Place { key_file, state, config: Some(config) });
        }
        let files = config::files(&path, &System).map_err(|problem| Failure::usage(problem.to_string()))?;
        Ok(Place { key_file: files.key_file, state: files.state, config: None })
    }
}

impl Place {
    /// The key file's name for messages.
    pub(super) fn shown(&self) -> std::path::Display<'_> {
        Path::display(&self.key_file)
    }
}
