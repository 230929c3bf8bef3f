use super::{
    Config, Job, Launch, LaunchError, Launched, Launcher, check, folder, script, stem, write,
};

/// Writes `STATE/print/LAUNCH/1-extract.sh` and so on, for a scheduler that this program does not
/// know.
#[derive(Clone, Debug)]
pub struct Print {
    /// What the scripts set up and say they need.
    pub config: Config,
}

impl Launcher for Print {
    fn launch(&self, launch: &Launch, jobs: &[Job]) -> Result<Launched, LaunchError> {
        check(launch, jobs)?;
        let folder = folder(launch, "print")?;
        let mut scripts = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let path = folder.join(format!("{}.sh", stem(index, job.kind)));
            write(&path, &script::plain(launch, jobs, index, &self.config.resources(job))?)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(&path, mode).map_err(|source| LaunchError::Io {
                    what: "make executable",
                    path: path.clone(),
                    source,
                })?;
            }
            scripts.push(path);
        }
        Ok(Launched { folder, scripts, ids: Vec::new() })
    }
}
