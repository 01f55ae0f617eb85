//! Golden conversations: what replicas say to each other, line by line. `BLESS=1` rewrites the
//! files; read the difference before you commit it.

mod support;

use std::path::Path;
use support::World;

/// Compares the transcript with the file, or rewrites the file.
fn compare(name: &str, world: World) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces").join(format!("{name}.txt"));
    let text = world.transcript.join("\n") + "\n";
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(&path, text).expect("the traces can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the trace exists; BLESS=1 writes it");
    let same = golden.lines().zip(text.lines()).take_while(|(left, right)| left == right).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
    assert!(
        golden == text,
        "{name} differs in line {}:\n  expected {}\n  was      {}\nBLESS=1 accepts it",
        same + 1,
        line(&golden),
        line(&text)
    );
}

/// A cluster that has started and has nothing to say.
fn quiet(n: u8) -> World {
    let mut world = World::new(n);
    world.run(100_000);
    world.tracing = true;
    world
}

fn note_answers(world: &mut World, id: u8) {
    for (_, answer) in world.answers(id) {
        world.note(&format!("{id} answers {answer:?}"));
    }
}

#[test]
fn fast_path() {
    let mut world = quiet(3);
    world.note("a client asks 0 to decide a");
    world.decide(0, "s", 1, "a");
    world.settle();
    note_answers(&mut world, 0);
    compare("fast_path", world);
}

#[test]
fn slow_path() {
    let mut world = quiet(3);
    world.note("clients ask 0 and 1 to decide a at once; 2 hears 1 first");
    world.decide(0, "s", 1, "a");
    world.decide(1, "t", 1, "a");
    world.step(1, 2);
    world.settle();
    note_answers(&mut world, 0);
    note_answers(&mut world, 1);
    compare("slow_path", world);
}

#[test]
fn conflict_of_five() {
    let mut world = quiet(5);
    world.note("clients ask 0 and 4 to decide a at once; each is heard first by those next to it");
    world.decide(0, "s", 1, "a");
    world.decide(4, "t", 1, "a");
    world.step(0, 1);
    world.step(4, 3);
    world.settle();
    note_answers(&mut world, 0);
    note_answers(&mut world, 4);
    compare("conflict_of_five", world);
}

#[test]
fn recovery_of_a_dead_coordinator() {
    let mut world = quiet(3);
    world.note("a client asks 0 to decide a; only 1 hears of it, and 0 dies");
    world.decide(0, "s", 1, "a");
    world.step(0, 1);
    world.crash(0);
    world.run(1_000_000);
    world.note("the client asks 2 again");
    world.decide(2, "s", 1, "a");
    world.settle();
    note_answers(&mut world, 2);
    compare("recovery_of_a_dead_coordinator", world);
}

#[test]
fn restart_and_replay() {
    let mut world = quiet(3);
    world.note("a client asks 0 to decide a");
    world.decide(0, "s", 1, "a");
    world.settle();
    note_answers(&mut world, 0);
    world.note("all stop in good order and start from their logs");
    for id in 0..3 {
        let now = world.now;
        world.core(id).on_stop(now);
    }
    world.run(100_000);
    (0..3).for_each(|id| world.crash(id));
    (0..3).for_each(|id| world.start(id));
    world.run(100_000);
    world.note("the client asks 1 the same again, and then something new");
    world.decide(1, "s", 1, "a");
    world.settle();
    world.decide(1, "s", 2, "a");
    world.settle();
    note_answers(&mut world, 1);
    compare("restart_and_replay", world);
}
