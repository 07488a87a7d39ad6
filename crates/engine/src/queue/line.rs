//! Which of a tenant's waiting tasks is admitted next. Pure: takes no locks and never waits.
//!
//! Bots take turns, and the tasks of a bot come in the order of their acceptance. The store alone counts unfinished tasks, and it decides
//! whether there is room: the line proposes one task at a time and learns what came of it. A bot or a tenant that was found full is proposed
//! again once one of its tasks has ended.

use std::collections::{BTreeSet, HashMap, VecDeque};

use errand_task::{BotId, TaskId};

/// What came of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The task was admitted.
    Admitted,
    /// Its bot has as many unfinished tasks as it may have.
    BotFull,
    /// The tenant has as many unfinished tasks as it may have.
    TenantFull,
}

/// A tenant's waiting tasks.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The bots with waiting tasks.
    bots: HashMap<BotId, OfBot>,
    /// The same bots in the order of their turns.
    turns: VecDeque<BotId>,
    /// The proposal whose result is awaited.
    trial: Option<Trial>,
    /// Whether the tenant was found full, and none of its tasks has ended since.
    full: bool,
    /// Whether the tenant was found full, and a task has waited for its room since.
    owed: bool,
}

#[derive(Debug, Default)]
struct OfBot {
    /// The waiting tasks. Their ids are in the order of their acceptance.
    tasks: BTreeSet<TaskId>,
    /// Whether the bot was found full, and none of its tasks has ended since.
    full: bool,
}

#[derive(Debug)]
struct Trial {
    bot: BotId,
    task: TaskId,
    /// Whether a task has ended since the proposal: the result may be of before that.
    freed: bool,
}

impl Line {
    /// A task begins to wait.
    pub(super) fn join(&mut self, bot: &BotId, task: TaskId) {
        let of_bot = self.bots.entry(bot.clone()).or_insert_with(|| {
            self.turns.push_back(bot.clone());
            OfBot::default()
        });
        of_bot.tasks.insert(task);
    }

    /// A task no longer waits. Does nothing if it does not wait.
    pub(super) fn leave(&mut self, bot: &BotId, task: TaskId) {
        self.trial.take_if(|trial| trial.task == task);
        let Some(of_bot) = self.bots.get_mut(bot) else { return };
        of_bot.tasks.remove(&task);
        if of_bot.tasks.is_empty() {
            self.bots.remove(bot);
            self.turns.retain(|other| other != bot);
        }
    }

    /// A task of the bot has ended.
    pub(super) fn freed(&mut self, bot: &BotId) {
        self.full = false;
        if let Some(of_bot) = self.bots.get_mut(bot) {
            of_bot.full = false;
        }
        if let Some(trial) = &mut self.trial {
            trial.freed = true;
        }
    }

    /// The task to admit next; none while the result of the last proposal is awaited, or when no task can be admitted.
    pub(super) fn next(&mut self) -> Option<TaskId> {
        if self.trial.is_some() || self.full {
            return None;
        }
        let first = self.turns.iter().find_map(|bot| {
            let of_bot = self.bots.get(bot).filter(|of_bot| !of_bot.full)?;
            Some((bot.clone(), *of_bot.tasks.first()?))
        });
        let Some((bot, task)) = first else {
            self.owed = false;
            return None;
        };
        self.trial = Some(Trial { bot, task, freed: false });
        Some(task)
    }

    /// Takes in what came of a proposal. Does nothing if another task was proposed.
    pub(super) fn settled(&mut self, task: TaskId, verdict: Verdict) {
        let Some(Trial { bot, freed, .. }) = self.trial.take_if(|trial| trial.task == task) else { return };
        match verdict {
            Verdict::Admitted => {
                self.leave(&bot, task);
                if self.bots.contains_key(&bot) {
                    // Its next turn comes after those of all others.
                    self.turns.retain(|other| *other != bot);
                    self.turns.push_back(bot);
                }
            }
            Verdict::BotFull => {
                if let Some(of_bot) = self.bots.get_mut(&bot) {
                    of_bot.full = !freed;
                }
            }
            Verdict::TenantFull => {
                self.full = !freed;
                self.owed = true;
            }
        }
    }

    /// Whether a new task of the bot must wait because others come first: earlier ones of the same bot, or, when the tenant was full, those
    /// of other bots that have room of their own.
    /// Says whose tasks come first: the `bot`'s or the `tenant`'s.
    pub(super) fn must_wait(&self, bot: &BotId) -> Option<&'static str> {
        if self.bots.contains_key(bot) {
            return Some("bot");
        }
        (self.owed && self.bots.values().any(|of_bot| !of_bot.full)).then_some("tenant")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use proptest::prelude::*;

    fn bot(number: u8) -> BotId {
        BotId::new(format!("bot{number}")).unwrap()
    }

    /// A store with caps, and a line in front of it.
    #[derive(Default)]
    struct World {
        line: Line,
        running: HashMap<u8, u32>,
        bots: HashMap<TaskId, u8>,
        /// The waiting tasks of each bot, oldest first.
        waiting: HashMap<u8, VecDeque<TaskId>>,
        /// A proposal that the store has decided, and whose result is on its way.
        decided: Option<(TaskId, Verdict)>,
        /// The bots in the order of admissions, with the bots that could have been admitted instead.
        admitted: Vec<(u8, Vec<u8>)>,
    }

    const PER_BOT: u32 = 2;
    const PER_TENANT: u32 = 4;

    impl World {
        fn room_of_tenant(&self) -> bool {
            self.running.values().sum::<u32>() < PER_TENANT
        }

        fn room_of(&self, bot: u8) -> bool {
            self.running.get(&bot).is_none_or(|running| *running < PER_BOT)
        }

        fn start(&mut self, number: u8, queues: bool) {
            let waits = self.line.must_wait(&bot(number)).is_some() || !self.room_of(number) || !self.room_of_tenant();
            if !waits {
                *self.running.entry(number).or_default() += 1;
            } else if queues {
                let task = TaskId::new();
                self.bots.insert(task, number);
                self.waiting.entry(number).or_default().push_back(task);
                self.line.join(&bot(number), task);
            }
        }

        fn end(&mut self, number: u8) {
            if let Some(running) = self.running.get_mut(&number).filter(|running| **running > 0) {
                *running -= 1;
                self.line.freed(&bot(number));
            }
        }

        fn give_up(&mut self, number: u8) {
            // A task about which the store has decided learns of that first.
            let decided = self.decided.map(|(task, _)| task);
            let Some(waiting) = self.waiting.get_mut(&number).filter(|waiting| waiting.back().copied() != decided)
            else {
                return;
            };
            if let Some(task) = waiting.pop_back() {
                self.line.leave(&bot(number), task);
            }
        }

        /// The store decides about the next task, or its decision arrives.
        fn go_on(&mut self) -> bool {
            if let Some((task, verdict)) = self.decided.take() {
                self.line.settled(task, verdict);
                return true;
            }
            let Some(task) = self.line.next() else { return false };
            let number = self.bots[&task];
            let verdict = if !self.room_of(number) {
                Verdict::BotFull
            } else if !self.room_of_tenant() {
                Verdict::TenantFull
            } else {
                assert_eq!(self.waiting.get_mut(&number).unwrap().pop_front(), Some(task), "in order");
                let others = self
                    .waiting
                    .iter()
                    .filter(|(other, tasks)| **other != number && !tasks.is_empty() && self.room_of(**other));
                let others = others.map(|(other, _)| *other).collect();
                *self.running.entry(number).or_default() += 1;
                self.admitted.push((number, others));
                Verdict::Admitted
            };
            self.decided = Some((task, verdict));
            true
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Start(u8, bool),
        End(u8),
        GiveUp(u8),
        GoOn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8, any::<bool>()).prop_map(|(bot, queues)| Step::Start(bot, queues)),
            3 => (0..4_u8).prop_map(Step::End),
            1 => (0..4_u8).prop_map(Step::GiveUp),
            4 => Just(Step::GoOn),
        ]
    }

    proptest! {
        #[test]
        fn no_task_waits_beside_room(steps in prop::collection::vec(step(), 0..120)) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::Start(bot, queues) => world.start(bot, queues),
                    Step::End(bot) => world.end(bot),
                    Step::GiveUp(bot) => world.give_up(bot),
                    Step::GoOn => drop(world.go_on()),
                }
                prop_assert!(world.running.values().all(|running| *running <= PER_BOT));
                prop_assert!(world.running.values().sum::<u32>() <= PER_TENANT);
            }
            while world.go_on() {}
            for (bot, tasks) in &world.waiting {
                prop_assert!(tasks.is_empty() || !world.room_of(*bot) || !world.room_of_tenant());
            }
            // And everything is admitted in the end.
            for _ in 0..200 {
                (0..4).for_each(|bot| world.end(bot));
                while world.go_on() {}
            }
            prop_assert!(world.waiting.values().all(VecDeque::is_empty) && world.line.is_empty());
            (0..4).for_each(|bot| world.end(bot));
            prop_assert!((0..4).all(|number| world.line.must_wait(&bot(number)).is_none()), "nobody comes first any more");
        }

        #[test]
        fn bots_take_turns(steps in prop::collection::vec(step(), 0..200)) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::Start(bot, _) => world.start(bot, true),
                    Step::End(bot) => world.end(bot),
                    Step::GiveUp(_) | Step::GoOn => while world.go_on() {},
                }
            }
            // Who could have been admitted instead of a bot comes before the same bot's next turn.
            for (index, (bot, others)) in world.admitted.iter().enumerate() {
                let Some(again) = world.admitted[index + 1..].iter().position(|(next, _)| next == bot) else { continue };
                let between = &world.admitted[index + 1..][..again];
                let still = &world.admitted[index + 1 + again].1;
                for other in others.iter().filter(|other| still.contains(other)) {
                    prop_assert!(between.iter().any(|(next, _)| next == other), "{other} waits while {bot} has two turns");
                }
            }
        }
    }

    #[test]
    fn long_queue_of_a_bot_delays_no_other() {
        let mut line = Line::default();
        let busy: Vec<_> = (0..1000).map(|_| TaskId::new()).collect();
        busy.iter().for_each(|task| line.join(&bot(1), *task));
        let quiet = TaskId::new();
        line.join(&bot(2), quiet);
        assert_eq!(line.next(), Some(busy[0]));
        assert_eq!(line.next(), None, "one at a time");
        line.settled(busy[0], Verdict::Admitted);
        assert_eq!(line.next(), Some(quiet));
        line.settled(quiet, Verdict::Admitted);
        assert_eq!(line.next(), Some(busy[1]));
        // A bot at its own cap keeps no other from its turn, or from starting at once.
        line.settled(busy[1], Verdict::BotFull);
        assert_eq!((line.must_wait(&bot(2)), line.must_wait(&bot(1))), (None, Some("bot")));
        line.join(&bot(2), quiet);
        assert_eq!(line.next(), Some(quiet));
        line.leave(&bot(2), quiet);
        assert_eq!(line.next(), None);
        line.freed(&bot(3));
        assert_eq!(line.next(), None, "its own tasks still run");
        line.freed(&bot(1));
        assert_eq!(line.next(), Some(busy[1]));
    }

    #[test]
    fn room_freed_during_a_proposal_is_not_missed() {
        for verdict in [Verdict::BotFull, Verdict::TenantFull] {
            let (mut line, task) = (Line::default(), TaskId::new());
            line.join(&bot(1), task);
            assert_eq!(line.next(), Some(task));
            line.freed(&bot(1));
            line.settled(task, verdict);
            assert_eq!(line.next(), Some(task), "the refusal may be of before");
            line.settled(task, verdict);
            assert_eq!(line.next(), None);
        }
    }

    #[test]
    fn direct_start_never_takes_owed_room() {
        let (mut line, task) = (Line::default(), TaskId::new());
        line.join(&bot(1), task);
        assert_eq!(line.must_wait(&bot(2)), None, "the tenant was not full");
        assert_eq!(line.next(), Some(task));
        line.settled(task, Verdict::TenantFull);
        assert_eq!(line.must_wait(&bot(2)), Some("tenant"));
        line.freed(&bot(3));
        assert_eq!(line.must_wait(&bot(2)), Some("tenant"), "the room is another's");
        assert_eq!(line.next(), Some(task));
        line.settled(task, Verdict::Admitted);
        assert_eq!(line.next(), None);
        assert_eq!((line.must_wait(&bot(2)), line.must_wait(&bot(1))), (None, None));
    }
}
