//! What goes wrong, and when: drawn from the seed before the run begins.

use std::time::Duration;

use kit::ids::Ids;

use crate::world::Recorder;

/// The hosts that can crash.
const HOSTS: [&str; 4] = ["broker", "order", "payment", "delivery"];

/// One thing that goes wrong, or that heals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The host stops dead: what it had not committed is gone.
    Crash(&'static str),
    /// The host starts again on the same disk.
    Restart(&'static str),
    /// Messages between two hosts stand still.
    Hold(&'static str, &'static str),
    /// They arrive.
    Release(&'static str, &'static str),
    /// Messages between two hosts are lost.
    Partition(&'static str, &'static str),
    /// No more are lost.
    Repair(&'static str, &'static str),
}

/// What goes wrong in one run, in order of time.
pub(crate) struct Faults {
    planned: Vec<(Duration, Fault)>,
    done: usize,
    crashes: usize,
}

impl Faults {
    /// Draws a plan in which everything is healed at `end`.
    pub(crate) fn draw(chance: &Ids, end: Duration) -> Self {
        let mut planned = Vec::new();
        let last_ms = u64::try_from(end.as_millis()).unwrap_or(u64::MAX).saturating_sub(500);
        let at = |ms: u64| Duration::from_millis(ms.min(last_ms + 499));
        for _ in 0..1 + chance.up_to(5) {
            let (host, from_ms, for_ms) = (pick(chance), chance.up_to(last_ms), 1 + chance.up_to(500));
            planned.push((at(from_ms), Fault::Crash(host)));
            planned.push((at(from_ms + for_ms), Fault::Restart(host)));
        }
        for _ in 0..chance.up_to(4) {
            let (a, b, from_ms, for_ms) = (pick(chance), pick(chance), chance.up_to(last_ms), 1 + chance.up_to(400));
            if a != b {
                planned.push((at(from_ms), Fault::Hold(a, b)));
                planned.push((at(from_ms + for_ms), Fault::Release(a, b)));
            }
        }
        // A lost message breaks its connection for good: the other side finds out by a timeout, which takes long in simulated time.
        if chance.up_to(7) == 0 {
            let (a, b, from_ms) = (pick(chance), pick(chance), chance.up_to(last_ms));
            if a != b {
                planned.push((at(from_ms), Fault::Partition(a, b)));
                planned.push((at(from_ms + 1 + chance.up_to(400)), Fault::Repair(a, b)));
            }
        }
        planned.sort_by_key(|(at, _)| *at);
        Self { planned, done: 0, crashes: 0 }
    }

    /// How many crashes there were.
    pub(crate) fn crashes(&self) -> usize {
        self.crashes
    }

    /// Lets go wrong what is due. Gives who crashed.
    pub(crate) fn apply(&mut self, sim: &mut turmoil::Sim<'_>, recorder: &Recorder) -> Vec<&'static str> {
        let mut crashed = Vec::new();
        while let Some((at, fault)) = self.planned.get(self.done).copied() {
            if at > sim.elapsed() {
                break;
            }
            self.done += 1;
            recorder.note(sim.elapsed().as_millis(), &format!("{fault:?}"));
            match fault {
                Fault::Crash(host) if sim.is_host_running(host) => {
                    self.crashes += 1;
                    sim.crash(host);
                    crashed.push(host);
                }
                Fault::Restart(host) if !sim.is_host_running(host) => sim.bounce(host),
                Fault::Crash(_) | Fault::Restart(_) => {}
                Fault::Hold(a, b) => sim.hold(a, b),
                Fault::Release(a, b) => sim.release(a, b),
                Fault::Partition(a, b) => sim.partition(a, b),
                Fault::Repair(a, b) => sim.repair(a, b),
            }
        }
        crashed
    }
}

fn pick(chance: &Ids) -> &'static str {
    let index = usize::try_from(chance.up_to(HOSTS.len() as u64 - 1)).unwrap_or(0);
    HOSTS.get(index).copied().unwrap_or("broker")
}
