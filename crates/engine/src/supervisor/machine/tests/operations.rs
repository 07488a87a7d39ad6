//! What the machine's operations do in the simulated world.

use std::time::Duration;

use super::{
    carrier::Server,
    sandbox::News,
    schedule::Launch,
    world::{Checked, END_BY, World},
};
use crate::supervisor::machine::{Input, Notice, Operation, Placed, RestRead};
use errand_runtime::{NotStarted, RuntimeError};
use errand_store::StoreError;
use errand_task::{Signal, Task};

impl World<'_> {
    pub(super) fn begin(&mut self, operation: Operation, latency: Duration) -> Checked {
        let now = self.now;
        let answers = self.sandbox.answers(now);
        let mut at = now + latency;
        if let Server::Here(carrier) = &mut self.server
            && matches!(carrier.operation, Some((_, Operation::Launch(_))))
        {
            // A launch that is given up takes its attachment along, which would have come with the answer: nothing is reported any more.
            carrier.attached = false;
            carrier.inbox.clear();
        }
        match &operation {
            Operation::Launch(_) => {
                let fate = self.fate();
                self.observed.launching(&self.stored, fate)?;
                let Server::Here(carrier) = &mut self.server else { return Ok(()) };
                self.observed.launched_elsewhere |= carrier.placed != Some(self.sandbox.incarnation());
                (carrier.silent, carrier.fate) = (true, fate);
                self.launches += 1;
                match fate {
                    Launch::Fine => self.sandbox.arriving.push(at),
                    Launch::Uncertain(after) | Launch::Unanswered(after) | Launch::Silent(after) => {
                        self.sandbox.arriving.extend(after.map(|after| now + after));
                    }
                    Launch::Unavailable | Launch::Refused => {}
                }
                carrier.attached = matches!(fate, Launch::Fine | Launch::Silent(_));
                at = if matches!(fate, Launch::Unanswered(_)) { now + END_BY } else { at };
            }
            Operation::Probe { limit, .. } | Operation::Attach { limit, .. } if !answers => at = now + *limit,
            Operation::Clear { limit, .. } if !answers => at = now + limit.unwrap_or(Duration::from_secs(12)),
            Operation::ReadRest { limit } if !answers && self.sandbox.is_running() => at = now + *limit,
            _ => {}
        }
        if let Server::Here(carrier) = &mut self.server {
            carrier.operation = Some((at, operation));
        }
        Ok(())
    }

    /// What comes of the next request to launch the command.
    fn fate(&self) -> Launch {
        let launches = &self.schedule.command.launches;
        let fate = launches[self.launches.min(launches.len() - 1)];
        if self.sandbox.answers(self.now) { fate } else { Launch::Unavailable }
    }

    pub(super) fn answer(&mut self, operation: Operation) -> Checked {
        let input = match operation {
            Operation::Store { task, notice, .. } => return self.store(task, notice),
            Operation::AwaitTurn | Operation::Admit { .. } => return Err("an admitted task waits for room".to_owned()),
            Operation::Place => Input::Placed(self.place()),
            Operation::CountMemoryKills => Input::MemoryKills(None),
            Operation::Launch(_) => {
                let Server::Here(carrier) = &mut self.server else { return Ok(()) };
                carrier.silent = matches!(carrier.fate, Launch::Fine | Launch::Silent(_));
                Input::Launched(match carrier.fate {
                    Launch::Fine | Launch::Silent(_) => Ok(()),
                    Launch::Uncertain(_) | Launch::Unanswered(_) => {
                        Err(RuntimeError::Uncertain { detail: String::new() })
                    }
                    Launch::Unavailable => Err(unavailable()),
                    Launch::Refused => {
                        Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, detail: String::new() })
                    }
                })
            }
            Operation::Attach { from, .. } => Input::Attached(self.attach(from)),
            Operation::ReadTail { .. } => Input::Tail(b"$ ".to_vec()),
            Operation::Inspect => Input::Inspected(self.sandbox.inspect(self.now)),
            Operation::Probe { fence, .. } => Input::Probed(self.sandbox.probe(fence, self.now, self.wall).map(Some)),
            Operation::ReadAtRest { path, .. } => Input::AtRest(self.sandbox.read_at_rest(&path, self.now)),
            Operation::Clear { signal, .. } => Input::Cleared(if self.sandbox.answers(self.now) {
                let (count, news) = self.sandbox.signal(signal, self.now);
                self.report(news);
                Ok(if signal == Some(Signal::KILL) { 0 } else { count })
            } else if self.sandbox.is_running() {
                Err(unavailable())
            } else {
                Err(RuntimeError::NotRunning { id: String::new() })
            }),
            Operation::ReadRest { .. } => {
                let reads = self.sandbox.answers(self.now);
                if reads {
                    self.output_end = self.sandbox.output;
                }
                let log = reads.then_some((self.sandbox.output, None));
                Input::RestRead(RestRead { log, end: self.output_end, again: !reads && self.sandbox.is_running() })
            }
            Operation::FindMemoryLimit => Input::MemoryLimit(None),
        };
        self.tell(|| format!("{input:?}").chars().take(200).collect());
        self.handle(input);
        Ok(())
    }

    fn place(&mut self) -> Placed {
        if !self.sandbox.exists {
            return Placed::Never("gone".to_owned());
        }
        if self.sandbox.is_down(self.now) {
            return Placed::NotYet;
        }
        self.sandbox.start();
        if let Server::Here(carrier) = &mut self.server {
            (carrier.permit, carrier.placed) = (true, Some(self.sandbox.incarnation()));
        }
        Placed::Ready(self.sandbox.incarnation())
    }

    fn attach(&mut self, from: u64) -> Result<(), RuntimeError> {
        if !self.sandbox.answers(self.now) {
            return Err(unavailable());
        }
        if let Server::Here(carrier) = &mut self.server {
            carrier.attached = true;
        }
        let mut news = Vec::new();
        if self.sandbox.launches > 0 {
            news.push(News::Started);
        }
        if self.sandbox.output > from {
            news.push(News::Output(self.sandbox.output));
        }
        let from = match &self.server {
            Server::Here(carrier) => carrier.machine.watches_to_search().first().map(|armed| armed.from),
            Server::Away(_) | Server::Broken(_) | Server::Done => None,
        };
        if let Some(from) = from.filter(|from| self.sandbox.is_supervised() && *from < self.sandbox.output) {
            news.push(News::Matched(from, self.sandbox.output));
        }
        if !self.sandbox.is_supervised() {
            news.extend(self.sandbox.told_ending().map(News::Ended));
            news.push(News::Over);
        }
        self.report(news);
        Ok(())
    }

    pub(super) fn answer_signal(&mut self) {
        let Server::Here(carrier) = &mut self.server else { return };
        let Some((_, signal)) = carrier.signal.take() else { return };
        let answer = match signal {
            Some(signal) if self.sandbox.answers(self.now) => {
                let (count, news) = self.sandbox.signal(Some(signal), self.now);
                self.observed.reached |= count > 0;
                self.report(news);
                Ok(count)
            }
            _ => {
                self.observed.signal_lost = true;
                Err(unavailable())
            }
        };
        self.tell(|| format!("signalled {signal:?}: {answer:?}"));
        self.handle(Input::Signalled(answer));
    }

    fn store(&mut self, mut task: Box<Task>, notice: Option<Notice>) -> Checked {
        if self.now < self.store_fails_until {
            self.handle(Input::Stored(Err(StoreError::DiskFull)));
            return Ok(());
        }
        if task.revision != self.stored.revision {
            self.break_down();
            return Ok(());
        }
        self.observed.storing(&self.stored, &task, notice.as_ref(), self.seen())?;
        task.revision += 1;
        task.output.bytes = task.output.bytes.max(self.output_end);
        self.stored.clone_from(&task);
        self.tell(|| format!("stored {:?}", task.state));
        self.handle(Input::Stored(Ok(task)));
        Ok(())
    }
}

fn unavailable() -> RuntimeError {
    RuntimeError::Unavailable { detail: String::new() }
}
