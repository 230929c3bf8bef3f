//! Sweeps as a user starts them.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod faults;
mod sharing;
mod workers;

use std::fs;

use common::{Ran, World};

/// A world with the samples, the golden encoder, and a sweep's file.
fn world(sweep: &str) -> World {
    let world = World::with_mini();
    fs::write(world.path("sweep.toml"), sweep).unwrap();
    world
}

fn good(ran: &Ran) {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

/// What each unit of a sweep took: passes of the encoder, images in them, seconds.
fn units(world: &World, out: &str) -> Vec<(u64, u64, f64)> {
    let mut units = Vec::new();
    for sweep in fs::read_dir(world.path(out).join(".sweeps")).unwrap() {
        for file in fs::read_dir(sweep.unwrap().path().join("units")).unwrap() {
            for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                let unit: serde_json::Value = serde_json::from_str(line).unwrap();
                let number = |name: &str| unit[name].as_u64().unwrap();
                units.push((number("passes"), number("images"), unit["seconds"].as_f64().unwrap()));
            }
        }
    }
    units
}
