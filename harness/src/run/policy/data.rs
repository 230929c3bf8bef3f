//! Demonstrations of a suite's tasks, their frames as images of a split, and their samples.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array3;
use schema::{DataRecord, PolicyTask, Source, SplitRecord};
use serde_json::Value;
use tasks::robot::{Demonstrations, Origin};

use super::inputs::{Inputs, Sample};
use crate::run::RunError;
use crate::run::extract::Images;

/// Demonstrations whose frames are held at a time: a shard may begin in one and end in the next.
const HELD: usize = 2;

/// One task and its demonstrations.
pub(super) struct Lessons {
    pub(super) task: PolicyTask,
    pub(super) demonstrations: Demonstrations,
}

/// The first demonstrations of a task, as images one after another.
pub(super) struct Frames<'a> {
    demonstrations: &'a Demonstrations,
    /// First frame of each, and the end.
    starts: Vec<usize>,
    held: Mutex<Vec<(usize, Arc<Vec<Array3<u8>>>)>>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(demonstrations: &'a Demonstrations, count: usize) -> Self {
        let mut starts = vec![0];
        for at in 0..count {
            starts.push(starts[at] + demonstrations.frames(at));
        }
        Self { demonstrations, starts, held: Mutex::default() }
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let demonstration = self.starts.partition_point(|&start| start <= at) - 1;
        (demonstration, at - self.starts[demonstration])
    }

    fn of(&self, demonstration: usize) -> Result<Arc<Vec<Array3<u8>>>, RunError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frames)) = held.iter().find(|(at, _)| *at == demonstration) {
            return Ok(Arc::clone(frames));
        }
        let frames = Arc::new(self.demonstrations.images(demonstration)?);
        if held.len() == HELD {
            held.remove(0);
        }
        held.push((demonstration, Arc::clone(&frames)));
        Ok(frames)
    }
}

impl Images for Frames<'_> {
    fn count(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn name(&self, at: usize) -> Cow<'_, str> {
        let (demonstration, frame) = self.place(at);
        format!("demonstration {demonstration}, frame {frame}").into()
    }

    fn image(&self, at: usize) -> Result<Array3<u8>, RunError> {
        let (demonstration, frame) = self.place(at);
        Ok(self.of(demonstration)?[frame].clone())
    }
}
