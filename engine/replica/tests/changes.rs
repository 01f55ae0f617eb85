//! Changes of the members of a real cluster, named in a real etcd, while clients go on.

mod named;
mod support;

use named::changing::{Change, Load, decide, done, epoch, ids, is_new_close, read};
use named::{World, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Output;
use support::{eventually, program};

#[test]
fn three_become_five_and_three_others_again_under_load() {
    let mut world = World::growing(3, 5);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    // The load knows only members that will be gone in the end, and one that stays.
    let load = Load::start(&world, &[0, 1, 2]);
    for index in [3, 4] {
        let change = Change::begin(&world, &["add", &world.address(index)]);
        world.cluster.spawn(index);
        change.end();
        eventually("all live", || world.living() == vec![true; index + 1]);
    }
    assert_eq!((epoch(&world), ids(&world)), (3, vec![0, 1, 2, 3, 4]));
    for (index, left) in [(0, vec![1, 2, 3, 4]), (1, vec![2, 3, 4])] {
        Change::begin(&world, &["remove", &index.to_string()]).end();
        assert_eq!(ids(&world), left);
    }
    load.end(&world, 4);
    assert_eq!(epoch(&world), 5);
    for index in [0, 1] {
        assert_eq!(world.cluster.stop(index), Some(0));
    }
    world.cluster.wait_agreed();
    assert_eq!(read(&world, 3, "before")["key_seq"], json!(1));
    decide(&world, 3, "after");
}

#[test]
fn a_member_whose_directory_was_wiped_is_replaced_while_clients_go_on() {
    let mut world = World::growing(3, 3);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 2]);
    world.cluster.kill(1);
    fs::remove_dir_all(world.cluster.data_dir(1)).unwrap();
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("isonomy member replace 1"), "{}", said(&refused));
    let change = Change::begin(&world, &["replace", "1"]);
    world.cluster.spawn(1);
    change.end();
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2]));
    load.end(&world, 1);
    world.cluster.wait_agreed();
    // The new one is a full member: with one of the others it decides.
    world.cluster.kill(0);
    decide(&world, 1, "after");
}

#[test]
fn a_member_that_lives_is_replaced_by_one_elsewhere() {
    let mut world = World::growing(3, 4);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 1, 2]);
    let change = Change::begin(&world, &["replace", "1", &world.address(3)]);
    let config = fs::read_to_string(world.cluster.config_path(3)).unwrap();
    fs::write(world.cluster.config_path(3), config.replace("replica = 3", "replica = 1")).unwrap();
    world.cluster.spawn(3);
    change.end();
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2]));
    load.end(&world, 3);
    assert_eq!(world.cluster.stop(1), Some(0));
    world.cluster.wait_agreed();
    // The old directory has no place any more.
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    world.cluster.kill(0);
    decide(&world, 3, "after");
}

#[test]
fn members_that_are_killed_at_any_step_delay_a_change() {
    let mut world = World::growing(3, 4);
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 1, 2]);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    let restart = |world: &mut World, index: usize| {
        world.cluster.kill(index);
        world.cluster.spawn(index);
    };
    // Before the new member is there, while it copies, and while the epoch ends.
    restart(&mut world, 0);
    world.cluster.spawn(3);
    eventually("the new member takes its place", || {
        world.listed()["change"]["members"][3]["incarnation"] != Value::Null || epoch(&world) == 2
    });
    restart(&mut world, 3);
    eventually("the end of the epoch", || {
        world.listed()["change"]["stage"] == json!("sealing") || epoch(&world) == 2
    });
    restart(&mut world, 1);
    restart(&mut world, 2);
    change.end();
    restart(&mut world, 0);
    load.end(&world, 3);
    world.cluster.wait_agreed();
}

#[test]
fn the_command_that_waits_is_not_needed() {
    let mut world = World::growing(3, 4);
    eventually("all live", || world.living() == [true; 3]);
    let Change { mut command, .. } = Change::begin(&world, &["add", &world.address(3)]);
    kill_process(Pid::from_child(&command), Signal::KILL).unwrap();
    command.wait().unwrap();
    world.cluster.spawn(3);
    eventually("the next epoch", || epoch(&world) == 2);
    done(&world.member(&["list", "--wait"]));
    decide(&world, 3, "after");
    world.cluster.wait_agreed();
}

#[test]
fn a_change_is_cancelled_and_another_one_promoted() {
    let mut world = World::growing(3, 4);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    done(&world.member(&["add", &world.address(3), "--hold", "--no-wait"]));
    world.cluster.spawn(3);
    eventually("the new member is close", || is_new_close(&world));
    assert_eq!((epoch(&world), &world.listed()["change"]["stage"]), (1, &json!("held")));
    done(&world.member(&["cancel"]));
    assert_eq!((epoch(&world), ids(&world), &world.listed()["change"]), (1, vec![0, 1, 2], &Value::Null));
    world.cluster.kill(3);
    fs::remove_dir_all(world.cluster.data_dir(3)).unwrap();
    decide(&world, 1, "between");

    done(&world.member(&["add", &world.address(3), "--hold", "--no-wait"]));
    world.cluster.spawn(3);
    eventually("the new member is close", || {
        is_new_close(&world) && world.listed()["change"]["members"][3]["lives"] == true
    });
    done(&world.member(&["promote"]));
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2, 3]));
    decide(&world, 3, "after");
    world.cluster.wait_agreed();
}

/// Members 1, 2 and 3 have a backup in epoch 3. Their restored cluster goes on in that epoch, under an id of its own, with
/// the members of its own record, and changes its members again.
#[test]
fn a_backup_of_a_later_epoch_becomes_a_cluster_that_changes_again() {
    let mut old = World::growing(3, 4);
    decide(&old, 0, "before");
    eventually("all live", || old.living() == [true; 3]);
    let change = Change::begin(&old, &["add", &old.address(3)]);
    old.cluster.spawn(3);
    change.end();
    eventually("all live", || old.living() == [true; 4]);
    Change::begin(&old, &["remove", "0"]).end();
    decide(&old, 3, "later");
    let backup = old.cluster.dir.path().join("backup");
    done(&snapshot(&["take", "--connect", &old.cluster.addresses()[3]]));
    done(&snapshot(&["export", "--dir", &text(&old.cluster.data_dir(3)), "--to", &text(&backup)]));
    (1..4).for_each(|index| old.cluster.kill(index));

    let mut new = World::new(4);
    let told = (0..3).map(|index| restored(&new, index, &backup)).collect::<Vec<_>>();
    let init = told[0].split("isonomy member init").nth(1).expect(&told[0]);
    let words: Vec<_> = init.split_whitespace().take_while(|word| *word != "--members").collect();
    assert!(words.ends_with(&["--epoch", "3", "--shards", "1"]), "{}", told[0]);
    let members = (0..3).map(|index| new.address(index)).collect::<Vec<_>>().join(",");
    done(&new.member(&[&["init", "--members", &members], &words[..]].concat()));
    (0..3).for_each(|index| new.cluster.spawn(index));
    new.cluster.wait_linked();
    eventually("all live", || new.living() == [true; 3]);
    assert_eq!(read(&new, 1, "before")["key_seq"], json!(1));
    assert_eq!(read(&new, 2, "later")["key_seq"], json!(1));
    let change = Change::begin(&new, &["add", &new.address(3)]);
    new.cluster.spawn(3);
    change.end();
    assert_eq!((epoch(&new), ids(&new)), (4, vec![0, 1, 2, 3]));
    assert_eq!(read(&new, 3, "later")["key_seq"], json!(1));
    new.cluster.wait_agreed();
}

fn snapshot(arguments: &[&str]) -> Output {
    program().arg("snapshot").args(arguments).output().unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Restores the backup for a replica; what the command says.
fn restored(world: &World, replica: usize, backup: &Path) -> String {
    let config = world.cluster.config_path(replica);
    let output = snapshot(&["restore", "--from", &text(backup), "--config", &text(&config)]);
    done(&output);
    String::from_utf8(output.stdout).unwrap()
}
