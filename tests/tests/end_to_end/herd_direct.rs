//! Look-ups in a herd's tables that the client sends to the worker of their key itself.

use std::time::{Duration, Instant};

use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::LocalDuckling;

use crate::support::{DEADLINE, attach};

/// Sessions on workers are opened beside statements: so long until then, at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is in the text of a look-up as it is sent.
const LOOK_UP: &str = "WHERE (k = ";

struct Herd {
    coordinator: LocalDuckling,
    workers: Vec<LocalDuckling>,
    _database: DuckDb,
    client: Connection,
}

impl Herd {
    fn new(workers: usize) -> Self {
        let coordinator = LocalDuckling::start().unwrap();
        let (database, mut client) = attach(coordinator.port());
        let workers: Vec<_> = (0..workers).map(|_| LocalDuckling::start().unwrap()).collect();
        for worker in &workers {
            let sql = format!("SELECT duckherder_register_worker('127.0.0.1:{}')", worker.port());
            client.run(&sql).unwrap();
        }
        Self {
            coordinator,
            workers,
            _database: database,
            client,
        }
    }

    fn create(&mut self, rows: u32) {
        self.client
            .run("CREATE TABLE dh.t (k BIGINT PRIMARY KEY, v VARCHAR) PARTITIONED BY (k) WITH (partitions = 8)")
            .unwrap();
        self.client
            .run(&format!(
                "INSERT INTO dh.t SELECT range, 'v' || range FROM range({rows})"
            ))
            .unwrap();
    }

    /// How many statements with that text the coordinator has run or sent on.
    fn seen(&self, text: &str) -> usize {
        let (_database, mut other) = attach(self.coordinator.port());
        let sql = format!(
            "FROM dh.query('SELECT count(*) FROM duckling_history() WHERE contains(sql, ''{text}'') AND NOT contains(sql, ''history'')')"
        );
        other.lines(&sql).unwrap().concat().parse().unwrap()
    }

    /// Looks keys up until none of a round of them goes by way of the coordinator.
    fn until_direct(&mut self) {
        let begun = Instant::now();
        loop {
            let before = self.seen(LOOK_UP);
            for key in 0..20 {
                look_up(&mut self.client, key);
            }
            if self.seen(LOOK_UP) == before {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "look-ups still go by way of the coordinator"
            );
        }
    }
}

fn look_up(client: &mut Connection, key: i64) -> Vec<String> {
    client.lines(&format!("SELECT * FROM dh.t WHERE k = {key}")).unwrap()
}

fn row(key: i64) -> Vec<String> {
    vec![format!("{key}|v{key}")]
}

#[test]
fn a_worker_is_asked_once_it_is_known() {
    let mut herd = Herd::new(3);
    herd.create(1000);
    assert_eq!(look_up(&mut herd.client, 5), row(5));
    assert_eq!(herd.seen(LOOK_UP), 1);
    herd.until_direct();
    let before = herd.seen(LOOK_UP);
    for key in 0..300 {
        assert_eq!(look_up(&mut herd.client, key), row(key));
    }
    assert_eq!(look_up(&mut herd.client, 1000), Vec::<String>::new());
    assert_eq!(herd.seen(LOOK_UP), before);
    // What is changed by way of the coordinator is seen.
    herd.client.run("UPDATE dh.t SET v = 'changed' WHERE k = 7").unwrap();
    herd.client.run("DELETE FROM dh.t WHERE k = 8").unwrap();
    herd.client
        .run("UPDATE dh.t SET k = 2000, v = 'v2000' WHERE k = 9")
        .unwrap();
    assert_eq!(look_up(&mut herd.client, 7), ["7|changed"]);
    assert_eq!(look_up(&mut herd.client, 8), Vec::<String>::new());
    assert_eq!(look_up(&mut herd.client, 9), Vec::<String>::new());
    assert_eq!(look_up(&mut herd.client, 2000), row(2000));
    let _ = DEADLINE;
}
