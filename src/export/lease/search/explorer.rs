//! All orders in which the pending calls of the machines can happen, breadth first, so that a trace is a shortest one.
//!
//! A machine is a function of the answers that it had. So a state is the bucket, the cloud, and for each machine the place
//! of its history in a tree; a future is run only where a history is new, from its beginning. States seen already are
//! not searched again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::graph::{Quickly, without_an_end};
use super::machine::{
    Answer, AttemptId, Attempts, Body, Call, End, Machine, Next, Phase, Run, Without, run_named,
};
use super::scenario::{Budget, Export, Found, Past, Scenario, Searched};
use crate::export::lease::{Created, Kind, LeaseState, Number};

const MACHINES: usize = 4;
const LEASES: usize = 5;
const RUNS: usize = 8;
/// Ages are counted in steps of the clock; more makes no difference.
const OLDEST: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// What and how old; `None` is 404.
    leases: [Option<(AttemptId, u8)>; LEASES],
    file: Body,
    exports: [Export; RUNS],
    /// Runs that a `--resubmit` gave up after its second reading.
    given_up: u8,
    removed: u8,
    nodes: [u32; MACHINES],
    /// Which of a machine's signatures are still accepted.
    valid: [u16; MACHINES],
    /// What was removed when the machine began to look.
    began: [u8; MACHINES],
    budget: Budget,
}

#[derive(Debug)]
struct Node {
    machine: usize,
    phase: Phase,
    history: Vec<Answer>,
    status: Status,
    live: u16,
    fresh: u16,
}

/// What can happen next, with what it breaks.
type Steps = Vec<(Step, State, Option<String>)>;

#[derive(Clone, Debug)]
enum Status {
    Call(Rc<Call>),
    End(End),
}

/// Where an answer leads: a node, and the signature that comes along into another phase.
#[derive(Clone, Copy, Debug)]
struct Child {
    node: u32,
    carried: Option<u8>,
    is_new_phase: bool,
}

/// One step, for traces.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Call(u32, Answer),
    Crash(usize),
    Completes(usize),
    Fails(usize),
    Tick,
}

#[derive(Debug)]
pub(super) struct Explorer<'a> {
    scenario: &'a Scenario,
    attempts: Rc<RefCell<Attempts>>,
    nodes: Vec<Node>,
    roots: HashMap<(usize, Phase), u32>,
    ends: HashMap<(usize, End), u32>,
    children: HashMap<(u32, Answer), Child>,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            attempts: Rc::default(),
            nodes: Vec::new(),
            roots: HashMap::new(),
            ends: HashMap::new(),
            children: HashMap::new(),
        }
    }

    /// Stops at the first violation, or after `limit` states.
    pub(super) fn search(mut self, limit: usize) -> Searched {
        let first = self.first();
        let mut seen: HashMap<State, u32, Quickly> = HashMap::default();
        let mut states = vec![first];
        let mut origins = vec![(0_u32, Step::Start)];
        let (mut ends, mut edges) = (Vec::<Vec<End>>::new(), Vec::<(u32, u32)>::new());
        let mut violation = None;
        seen.insert(first, 0);
        let (mut next, mut steps) = (0, 0);
        let mut following = Vec::new();
        while next < states.len() && violation.is_none() {
            let (state, from) = (states[next], u32::try_from(next).expect("few states"));
            next += 1;
            following.clear();
            self.successors(&state, &mut following);
            if self.is_finished(&state) {
                edges.push((from, from));
                let how = self.how_ended(&state);
                if !ends.contains(&how) {
                    ends.push(how);
                }
            } else if following.is_empty() {
                violation = Some(("stuck".to_owned(), from, Step::Start));
            }
            for (step, after, broken) in following.drain(..) {
                steps += 1;
                if let Some(broken) = broken {
                    violation = Some((broken, from, step));
                    break;
                }
                let to = match seen.entry(after) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let index = u32::try_from(states.len()).expect("few states");
                        new.insert(index);
                        states.push(after);
                        origins.push((from, step));
                        index
                    }
                };
                edges.push((from, to));
            }
            assert!(
                states.len() <= limit,
                "{}: too many states",
                self.scenario.name
            );
        }
        if violation.is_none() {
            let lost = without_an_end(states.len(), &edges);
            violation = lost.map(|state| ("no way to an end".to_owned(), state, Step::Start));
        }
        let violation = violation.map(|(what, at, last)| Found {
            what,
            trace: self.trace(&origins, at, last),
        });
        Searched {
            states: states.len(),
            steps,
            histories: self.nodes.len(),
            violation,
            ends,
        }
    }

    fn first(&mut self) -> State {
        let scenario = self.scenario;
        let mut state = State {
            leases: [None; LEASES],
            file: scenario.file,
            exports: [Export::None; RUNS],
            given_up: 0,
            removed: 0,
            nodes: [u32::MAX; MACHINES],
            valid: [0; MACHINES],
            began: [0; MACHINES],
            budget: scenario.budget,
        };
        for (slot, lease) in state.leases.iter_mut().zip(&scenario.leases) {
            *slot = lease
                .as_ref()
                .map(|lease| (self.attempts.borrow_mut().id(lease), OLDEST));
        }
        for (run, export) in &scenario.exports {
            state.exports[usize::from(*run)] = *export;
        }
        for machine in 0..scenario.machines.len() {
            state.nodes[machine] = self.root(machine, Phase::Look);
        }
        if let Some((machine, past)) = &scenario.past {
            for past in past {
                let answer = match past {
                    Past::Found(number, run, state) => Answer::Found(*number, *run, *state),
                    Past::Lease(lease) => {
                        let id = self.attempts.borrow_mut().id(lease);
                        Answer::Lease(Some((id, OLDEST)))
                    }
                };
                self.answer(&mut state, *machine, answer);
            }
        }
        state
    }

    fn is_finished(&self, state: &State) -> bool {
        (0..self.scenario.machines.len()).all(|machine| {
            match &self.nodes[state.nodes[machine] as usize].status {
                Status::End(_) => true,
                Status::Call(call) => **call == Call::Watch,
            }
        })
    }

    fn how_ended(&self, state: &State) -> Vec<End> {
        let machines = 0..self.scenario.machines.len();
        machines
            .filter_map(|machine| self.end(state, machine))
            .collect()
    }

    fn end(&self, state: &State, machine: usize) -> Option<End> {
        match &self.nodes[state.nodes[machine] as usize].status {
            Status::End(end) => Some(*end),
            Status::Call(_) => None,
        }
    }

    fn successors(&mut self, state: &State, out: &mut Steps) {
        for machine in 0..self.scenario.machines.len() {
            let index = state.nodes[machine];
            let node = &self.nodes[index as usize];
            let Status::Call(call) = &node.status else {
                continue;
            };
            let call = Rc::clone(call);
            let begins = node.history.is_empty() && node.phase == Phase::Look;
            let orders = self.scenario.machines[machine];
            let waits = |&other: &usize| self.end(state, other).is_none();
            if begins && orders.after.iter().any(waits) {
                continue;
            }
            let mut from = *state;
            if begins {
                from.began[machine] = state.removed;
            }
            self.happen(&from, machine, &call, out);
            if from.budget.crashes > 0 && orders.may_crash && !begins {
                let mut after = from;
                after.budget.crashes -= 1;
                self.finish(&mut after, machine, End::Crashed);
                out.push((Step::Crash(machine), after, None));
            }
        }
        for run in 0..RUNS {
            if state.exports[run] != Export::Runs {
                continue;
            }
            let mut after = *state;
            after.exports[run] = Export::Complete;
            after.file = Run::try_from(run).ok();
            out.push((Step::Completes(run), after, None));
            if state.budget.failures > 0 {
                let mut after = *state;
                after.exports[run] = Export::Failed;
                after.budget.failures -= 1;
                out.push((Step::Fails(run), after, None));
            }
        }
        self.tick(state, out);
    }

    /// Fifteen minutes pass. What a machine signed after its last answer it may have signed before or after them.
    fn tick(&self, state: &State, out: &mut Steps) {
        if state.budget.ticks == 0 {
            return;
        }
        let mut after = *state;
        after.budget.ticks -= 1;
        for (_, age) in after.leases.iter_mut().flatten() {
            *age = OLDEST.min(*age + 1);
        }
        let mut variants = vec![after];
        for machine in 0..self.scenario.machines.len() {
            let fresh = state.valid[machine] & self.nodes[state.nodes[machine] as usize].fresh;
            let mut early = Vec::new();
            for variant in &mut variants {
                variant.valid[machine] = 0;
                if fresh != 0 {
                    let mut late = *variant;
                    late.valid[machine] = fresh;
                    early.push(late);
                }
            }
            variants.append(&mut early);
        }
        let changes = |after: &State| after.leases != state.leases || after.valid != state.valid;
        let variants = variants.into_iter().filter(changes);
        out.extend(variants.map(|after| (Step::Tick, after, None)));
    }

    /// Every way in which `call` can happen.
    fn happen(&mut self, state: &State, machine: usize, call: &Call, out: &mut Steps) {
        match *call {
            Call::Get(number) => {
                let lease = state.leases.get(place(number)).copied().flatten();
                self.add(out, machine, *state, Answer::Lease(lease), None);
            }
            Call::List => {
                let highest = state.leases.iter().rposition(Option::is_some);
                let highest = highest.and_then(|index| Number::try_from(index + 1).ok());
                self.add(out, machine, *state, Answer::Listed(highest), None);
            }
            Call::Head => self.add(out, machine, *state, Answer::File(state.file), None),
            Call::Create(number, id) => self.create(state, machine, number, id, out),
            Call::Put(_, token, _) | Call::Send { token, .. } | Call::Delete { token, .. }
                if !self.is_valid(state, machine, token) =>
            {
                self.add(out, machine, *state, Answer::Expired, None);
            }
            Call::Put(number, _, id) => {
                let mut after = *state;
                after.given_up |= self.gives_up(state, machine, id);
                after.leases[place(number)] = Some((id, 0));
                self.add(out, machine, after, Answer::Done, None);
                if let Some(budget) = state.budget.after_a_loss() {
                    let (before, after) = (State { budget, ..*state }, State { budget, ..after });
                    self.add(out, machine, before, Answer::Lost, None);
                    self.add(out, machine, after, Answer::Lost, None);
                }
            }
            Call::Send { replaces, .. } => self.send(state, machine, replaces, out),
            Call::Delete { listed, .. } => {
                let other = state.file.filter(|file| *file != listed);
                let other = other.filter(|file| state.given_up >> file & 1 == 0);
                let broken = other.map(|file| {
                    format!("S3: a removal that listed the file of run {listed} deletes that of run {file}")
                });
                let mut after = *state;
                after.file = None;
                after.removed |= 1 << listed;
                self.add(out, machine, after, Answer::Done, broken);
            }
            Call::Wait {
                ref row,
                file,
                waits_for,
                is_for_age,
            } => {
                // Who waits looks once more before it stops waiting.
                let now = state.leases.iter().flatten().copied();
                if !now.eq(row.iter().copied()) || state.file != file {
                    self.add(out, machine, *state, Answer::Changed, None);
                } else if !is_for_age || state.budget.ticks == 0 {
                    let broken = self.needless_wait(state, machine, waits_for);
                    self.add(out, machine, *state, Answer::TimedOut, broken);
                }
            }
            Call::Watch => {
                for answer in self.to_repair(state) {
                    self.add(out, machine, *state, answer, None);
                }
            }
        }
    }

    fn create(
        &mut self,
        state: &State,
        machine: usize,
        number: Number,
        id: AttemptId,
        out: &mut Steps,
    ) {
        let mut after = *state;
        if number > self.scenario.numbers {
            let step = Step::Call(state.nodes[machine], Answer::Lost);
            self.finish(&mut after, machine, End::OutOfNumbers);
            out.push((step, after, None));
            return;
        }
        let slot = &mut after.leases[place(number)];
        let created = match slot {
            Some(_) => Created::Taken,
            None => Created::New,
        };
        slot.get_or_insert((id, 0));
        self.add(out, machine, after, Answer::Created(created), None);
        if let Some(budget) = state.budget.after_a_loss() {
            let (before, after) = (State { budget, ..*state }, State { budget, ..after });
            self.add(out, machine, before, Answer::Lost, None);
            if created == Created::New {
                self.add(out, machine, after, Answer::Lost, None);
            }
        }
    }

    fn send(&mut self, state: &State, machine: usize, replaces: Body, out: &mut Steps) {
        let mut after = *state;
        if state.budget.refusals > 0 {
            after.budget.refusals -= 1;
            self.add(out, machine, after, Answer::Refused, None);
            if self.scenario.machines[machine].does_queue {
                self.add(out, machine, after, Answer::Later, None);
            }
        }
        let mut after = *state;
        after.exports[machine] = Export::Runs;
        let broken = second_submit(state, machine, replaces);
        self.add(out, machine, after, Answer::Accepted, broken);
    }

    fn is_valid(&self, state: &State, machine: usize, token: u8) -> bool {
        state.valid[machine] >> token & 1 == 1
            || self.scenario.world.without == Some(Without::Expiry)
    }

    /// `machine` gets `answer`, in the world `after` its call.
    fn add(
        &mut self,
        out: &mut Steps,
        machine: usize,
        mut after: State,
        answer: Answer,
        broken: Option<String>,
    ) {
        let step = Step::Call(after.nodes[machine], answer);
        let ended = self.answer(&mut after, machine, answer);
        out.push((step, after, broken.or(ended)));
    }

    /// The run whose attempt of unknown outcome this put gives up, as its user asked: its export may run, and is excused.
    /// What counts is what the put rests on: the owner may have written "submitted" since.
    fn gives_up(&self, state: &State, machine: usize, put: AttemptId) -> u8 {
        let history = &self.nodes[state.nodes[machine] as usize].history;
        let Some(Answer::Lease(Some((read, _)))) = history.last() else {
            return 0;
        };
        let attempts = self.attempts.borrow();
        let (then, now) = (attempts.get(*read), attempts.get(put));
        let is_excused = self.scenario.machines[machine].is_resubmit
            && then.kind == Kind::Export
            && then.state == LeaseState::Intended
            && now.state == LeaseState::Abandoned;
        u8::from(is_excused) << run_named(&then.run)
    }

    /// What a watch can find to be other than the row says.
    fn to_repair(&self, state: &State) -> Vec<Answer> {
        let mut found = Vec::new();
        for (number, lease) in (1..).zip(&state.leases) {
            let Some((id, _)) = lease else {
                continue;
            };
            let attempts = self.attempts.borrow();
            let attempt = attempts.get(*id);
            let run = run_named(&attempt.run);
            let is_submitted = attempt.state == LeaseState::Submitted;
            let is_sent = is_submitted || attempt.state == LeaseState::Intended;
            if attempt.kind == Kind::Removal || !is_sent {
                continue;
            }
            if is_submitted && state.exports[usize::from(run)] == Export::Failed {
                found.push(Answer::Found(number, run, LeaseState::Failed));
            }
            if state.file.is_some() && state.file != attempt.body {
                found.push(Answer::Found(number, run, LeaseState::Complete));
            }
        }
        found
    }

    /// Exit 11 where nothing is unknown: one's own attempt, or one of a run that ended and sent nothing.
    fn needless_wait(&self, state: &State, machine: usize, waits_for: Run) -> Option<String> {
        let other = usize::from(waits_for);
        if other == machine {
            return Some("11: a run waits for itself".to_owned());
        }
        let is_machine = other < self.scenario.machines.len();
        let end = is_machine.then(|| self.end(state, other)).flatten()?;
        let is_known = !matches!(end, End::Crashed | End::Failed | End::Unknown);
        (is_known && state.exports[other] == Export::None)
            .then(|| format!("11: a run waits for run {other}, which ended {end:?}"))
    }

    /// Gives `answer` to a machine.
    fn answer(&mut self, state: &mut State, machine: usize, answer: Answer) -> Option<String> {
        let from = state.nodes[machine];
        let child = match self.children.get(&(from, answer)) {
            Some(child) => *child,
            None => {
                let node = &self.nodes[from as usize];
                let mut history = node.history.clone();
                history.push(answer);
                let child = self.replay(machine, node.phase, history);
                self.children.insert((from, answer), child);
                child
            }
        };
        let node = &self.nodes[child.node as usize];
        let kept = match (child.carried, child.is_new_phase) {
            (Some(token), _) => state.valid[machine] >> token & 1,
            (None, true) => 0,
            (None, false) => state.valid[machine],
        };
        state.nodes[machine] = child.node;
        state.valid[machine] = (kept & node.live) | node.fresh;
        match node.status {
            Status::End(end) => {
                let began = std::mem::take(&mut state.began[machine]);
                let End::Attached(run) = end else {
                    return None;
                };
                if state.exports[usize::from(run)] == Export::None {
                    return Some(format!(
                        "S2: attaches to run {run}, which was never accepted"
                    ));
                }
                (began >> run & 1 == 1)
                    .then(|| format!("S2: attaches to run {run}, whose file was removed before"))
            }
            Status::Call(_) => {
                if child.is_new_phase {
                    state.began[machine] = 0;
                }
                None
            }
        }
    }

    fn finish(&mut self, state: &mut State, machine: usize, end: End) {
        state.nodes[machine] = self.ending(machine, end);
        state.valid[machine] = 0;
        state.began[machine] = 0;
    }

    fn ending(&mut self, machine: usize, end: End) -> u32 {
        if let Some(node) = self.ends.get(&(machine, end)) {
            return *node;
        }
        let node = self.push(Node {
            machine,
            phase: Phase::Look,
            history: Vec::new(),
            status: Status::End(end),
            live: 0,
            fresh: 0,
        });
        self.ends.insert((machine, end), node);
        node
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("few histories")
    }

    fn root(&mut self, machine: usize, phase: Phase) -> u32 {
        if let Some(node) = self.roots.get(&(machine, phase)) {
            return *node;
        }
        let node = self.replay(machine, phase, Vec::new()).node;
        self.roots.insert((machine, phase), node);
        node
    }

    /// Runs the machine from the beginning of `phase` with the answers of `history`, until it makes its next call.
    fn replay(&mut self, number: usize, phase: Phase, history: Vec<Answer>) -> Child {
        let run = Run::try_from(number).expect("few machines");
        let (orders, world) = (self.scenario.machines[number], self.scenario.world);
        let attempts = Rc::clone(&self.attempts);
        let machine = Machine::new(run, orders, world, attempts, history.clone());
        let token = matches!(phase, Phase::Send(_)).then(|| machine.carried());
        let mut proceeding = pin!(machine.proceed(phase, token));
        let mut context = Context::from_waker(Waker::noop());
        match proceeding.as_mut().poll(&mut context) {
            Poll::Pending => {
                let call = machine.pending().expect("only calls suspend");
                let node = self.push(Node {
                    machine: number,
                    phase,
                    history,
                    status: Status::Call(Rc::new(call)),
                    live: machine.live(),
                    fresh: machine.fresh(),
                });
                Child {
                    node,
                    carried: None,
                    is_new_phase: false,
                }
            }
            Poll::Ready(Next::End(end)) => {
                let node = self.ending(number, end);
                Child {
                    node,
                    carried: None,
                    is_new_phase: true,
                }
            }
            Poll::Ready(Next::Phase(phase, token)) => {
                let carried = token.as_ref().map(super::machine::Token::index);
                let node = self.root(number, phase);
                Child {
                    node,
                    carried,
                    is_new_phase: true,
                }
            }
        }
    }

    fn trace(&self, origins: &[(u32, Step)], at: u32, last: Step) -> Vec<String> {
        let (mut at, mut steps) = (at, vec![last]);
        while at != 0 {
            let (before, step) = origins[at as usize];
            steps.push(step);
            at = before;
        }
        let steps = steps.into_iter().rev();
        steps.filter_map(|step| self.describe(step)).collect()
    }

    fn describe(&self, step: Step) -> Option<String> {
        Some(match step {
            Step::Start => return None,
            Step::Crash(machine) => format!("{machine} is killed"),
            Step::Completes(run) => format!("the export of {run} completes"),
            Step::Fails(run) => format!("the export of {run} fails"),
            Step::Tick => "15 minutes pass".to_owned(),
            Step::Call(node, answer) => {
                let node = &self.nodes[node as usize];
                let Status::Call(call) = &node.status else {
                    return None;
                };
                let attempts = self.attempts.borrow();
                let id = match (&**call, answer) {
                    (Call::Create(_, id) | Call::Put(_, _, id), _) => Some(*id),
                    (_, Answer::Lease(lease)) => lease.map(|(id, _)| id),
                    _ => None,
                };
                let what = id.map(|id| {
                    let attempt = attempts.get(id);
                    format!(
                        " [{} {:?} {:?} floor {}]",
                        attempt.run, attempt.kind, attempt.state, attempt.floor
                    )
                });
                format!(
                    "{} {call:?} -> {answer:?}{}",
                    node.machine,
                    what.unwrap_or_default()
                )
            }
        })
    }
}

fn place(number: Number) -> usize {
    number as usize - 1
}

/// S1 and SR: whether the export of `machine` is accepted while another runs, or its files exist.
fn second_submit(state: &State, machine: usize, replaces: Body) -> Option<String> {
    let others = (0..RUNS).filter(|run| *run != machine);
    for run in others {
        let id = Run::try_from(run).ok();
        let is_in_the_way = match state.exports[run] {
            Export::None | Export::Failed => false,
            Export::Runs => true,
            Export::Complete => state.file == id && replaces != id,
        };
        if is_in_the_way && state.given_up >> run & 1 == 0 {
            let kind = match state.given_up >> machine & 1 {
                1 => "SR",
                _ => "S1",
            };
            let how = state.exports[run];
            return Some(format!(
                "{kind}: run {machine} is accepted while run {run}: {how:?}"
            ));
        }
    }
    None
}
