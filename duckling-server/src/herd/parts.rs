//! Which worker is told what of a query.

use std::collections::BTreeSet;

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_catalog::herd::query::{Column, HerdQuery, Output, Stage, StageId};
use duckherder_proto::v1::{ColumnDescription, HerdDestination, HerdExchange, HerdStage, OutputKind};
use duckherder_proto::{ExceptionType, RemoteError};

/// A worker's part of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub worker: WorkerId,
    /// What it runs, in order.
    pub stages: Vec<HerdStage>,
    /// What it reads.
    pub exchanges: Vec<HerdExchange>,
    /// Others that it reads from.
    pub peers: BTreeSet<WorkerId>,
    /// Whether its rows are the coordinator's.
    pub gathers: bool,
}

/// The parts of all workers.
///
/// # Errors
/// The query does not hold together: running it would lose rows, or wait for some that never come.
pub fn parts(query: &HerdQuery) -> Result<Vec<Part>, RemoteError> {
    check(query)?;
    let mut workers: Vec<&WorkerId> = Vec::new();
    for worker in query.stages.iter().flat_map(|stage| &stage.workers) {
        if !workers.contains(&worker) {
            workers.push(worker);
        }
    }
    Ok(workers.into_iter().map(|worker| part(query, worker)).collect())
}

/// The columns of the rows that are gathered.
pub fn gathered(query: &HerdQuery) -> Vec<ColumnDescription> {
    query
        .stages
        .last()
        .map(|stage| columns(&stage.columns))
        .unwrap_or_default()
}

fn part(query: &HerdQuery, worker: &WorkerId) -> Part {
    let own: Vec<_> = query
        .stages
        .iter()
        .filter(|stage| stage.workers.contains(worker))
        .collect();
    let inputs: BTreeSet<StageId> = own.iter().flat_map(|stage| stage.inputs.iter().copied()).collect();
    let read = query.stages.iter().filter(|stage| inputs.contains(&stage.id));
    let exchanges: Vec<_> = read
        .map(|stage| HerdExchange {
            stage: stage.id,
            columns: columns(&stage.columns),
            producers: match stage.output {
                Output::Forward => vec![worker.0.clone()],
                _ => stage.workers.iter().map(|producer| producer.0.clone()).collect(),
            },
            rows: rows_of_reader(stage),
            distinct_counts: stage.estimates.distinct.clone(),
        })
        .collect();
    let producers = exchanges.iter().flat_map(|exchange| &exchange.producers);
    Part {
        worker: worker.clone(),
        peers: producers
            .filter(|producer| **producer != worker.0)
            .map(|producer| WorkerId(producer.clone()))
            .collect(),
        gathers: own.iter().any(|stage| stage.output == Output::Gather),
        stages: own.iter().map(|stage| described(query, stage, worker)).collect(),
        exchanges,
    }
}

/// About how many of a stage's rows one worker reads.
fn rows_of_reader(stage: &Stage) -> u64 {
    let readers = match &stage.output {
        Output::Hash { buckets } => buckets.iter().collect::<BTreeSet<_>>().len(),
        Output::Forward => stage.workers.len(),
        Output::Gather | Output::Broadcast { .. } => 1,
    };
    stage.estimates.rows / (readers.max(1) as u64)
}

fn described(query: &HerdQuery, stage: &Stage, worker: &WorkerId) -> HerdStage {
    let mut destinations: Vec<WorkerId> = Vec::new();
    let mut place = |to: &WorkerId| {
        let found = destinations.iter().position(|known| known == to);
        let place = found.unwrap_or_else(|| {
            destinations.push(to.clone());
            destinations.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    };
    let mut buckets = Vec::new();
    let output = match &stage.output {
        Output::Gather => OutputKind::Gather,
        Output::Hash { buckets: workers } => {
            buckets = workers.iter().map(&mut place).collect();
            // Readers without a bucket find that there is nothing for them.
            for reader in readers(query, stage.id) {
                place(reader);
            }
            OutputKind::Hash
        }
        Output::Broadcast { to } => {
            for to in to {
                place(to);
            }
            OutputKind::Broadcast
        }
        Output::Forward => {
            place(worker);
            OutputKind::Forward
        }
    };
    HerdStage {
        stage: stage.id,
        sql: stage.sql.clone(),
        columns: columns(&stage.columns),
        output: output.into(),
        destinations: destinations
            .iter()
            .map(|to| HerdDestination {
                worker_id: to.0.clone(),
                readers: times_read(query, stage.id, to),
            })
            .collect(),
        buckets,
    }
}

fn columns(columns: &[Column]) -> Vec<ColumnDescription> {
    columns
        .iter()
        .map(|column| ColumnDescription {
            name: column.name.clone(),
            type_text: column.type_text.clone(),
            ..ColumnDescription::default()
        })
        .collect()
}

/// Who runs a stage that reads the exchange.
fn readers(query: &HerdQuery, exchange: StageId) -> impl Iterator<Item = &WorkerId> {
    let reading = query
        .stages
        .iter()
        .filter(move |stage| stage.inputs.contains(&exchange));
    reading.flat_map(|stage| &stage.workers)
}

/// How often a worker reads the exchange.
fn times_read(query: &HerdQuery, exchange: StageId, worker: &WorkerId) -> u32 {
    let own = query.stages.iter().filter(|stage| stage.workers.contains(worker));
    let times = own.flat_map(|stage| &stage.inputs).filter(|input| **input == exchange);
    u32::try_from(times.count()).unwrap_or(u32::MAX)
}

fn check(query: &HerdQuery) -> Result<(), RemoteError> {
    let refuse = |stage: &Stage, problem: &str| {
        Err(RemoteError::new(
            ExceptionType::InvalidInput,
            format!("the distributed query cannot be run: stage {} {problem}", stage.id),
        ))
    };
    let Some(last) = query.stages.last() else {
        return Err(RemoteError::new(
            ExceptionType::InvalidInput,
            "the distributed query has no stages",
        ));
    };
    if last.output != Output::Gather {
        return refuse(last, "is the last one and does not gather");
    }
    let mut earlier: Vec<&Stage> = Vec::new();
    for stage in &query.stages {
        if stage.workers.is_empty() {
            return refuse(stage, "has no workers");
        }
        if earlier.iter().any(|known| known.id == stage.id) {
            return refuse(stage, "is there twice");
        }
        if stage.output == Output::Gather && stage.id != last.id {
            return refuse(stage, "gathers and is not the last one");
        }
        for input in &stage.inputs {
            let Some(producer) = earlier.iter().find(|known| known.id == *input) else {
                return refuse(stage, &format!("reads stage {input}, which is not before it"));
            };
            let misses_rows = match &producer.output {
                Output::Gather => true,
                Output::Hash { buckets } => {
                    // Rows for a worker that does not read them would be lost.
                    !buckets.iter().all(|to| stage.workers.contains(to))
                }
                Output::Broadcast { to } => !stage.workers.iter().all(|worker| to.contains(worker)),
                // All workers may have made the same rows: then it is enough that those who read have some.
                Output::Forward => !stage.workers.iter().all(|worker| producer.workers.contains(worker)),
            };
            if misses_rows {
                return refuse(stage, &format!("would miss rows of stage {input}, which it reads"));
            }
        }
        earlier.push(stage);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use duckherder_catalog::herd::query::Estimates;

    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId(name.to_owned())
    }

    fn stage(id: StageId, workers: &[&str], output: Output, inputs: &[StageId]) -> Stage {
        Stage {
            estimates: Estimates::default(),
            id,
            sql: format!("SELECT {id}"),
            workers: workers.iter().map(|name| worker(name)).collect(),
            columns: vec![Column {
                name: "a".to_owned(),
                type_text: "INTEGER".to_owned(),
            }],
            output,
            inputs: inputs.to_vec(),
        }
    }

    fn hash(workers: &[&str]) -> Output {
        Output::Hash {
            buckets: workers.iter().map(|name| worker(name)).collect(),
        }
    }

    #[test]
    fn every_worker_gets_its_stages_and_what_they_read() {
        let query = HerdQuery {
            stages: vec![
                stage(1, &["a", "b"], hash(&["a", "c", "a"]), &[]),
                stage(2, &["a", "c"], Output::Forward, &[1, 1]),
                stage(3, &["a", "c"], Output::Gather, &[2]),
            ],
            summary: None,
        };
        let parts = parts(&query).unwrap();
        let names: Vec<_> = parts.iter().map(|part| part.worker.0.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let [a, b, c] = parts.as_slice() else { panic!("three") };
        assert_eq!(a.stages.iter().map(|stage| stage.stage).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(a.stages[0].buckets, [0, 1, 0]);
        let destinations = &a.stages[0].destinations;
        assert_eq!((destinations[1].worker_id.as_str(), destinations[1].readers), ("c", 2));
        assert_eq!(a.stages[1].destinations[0].worker_id, "a");
        assert_eq!(a.peers, BTreeSet::from([worker("b")]));
        assert!(a.gathers && c.gathers && !b.gathers);
        assert_eq!((b.stages.len(), b.exchanges.len(), b.peers.len()), (1, 0, 0));
        assert_eq!(c.exchanges[0].producers, ["a", "b"]);
        assert_eq!(c.exchanges[1].producers, ["c"]);
        assert_eq!(c.peers, BTreeSet::from([worker("a"), worker("b")]));
    }

    #[test]
    fn a_reader_without_a_bucket_finds_that_there_is_nothing() {
        let query = HerdQuery {
            stages: vec![
                stage(1, &["a"], hash(&["a"]), &[]),
                stage(2, &["a", "b"], Output::Gather, &[1]),
            ],
            summary: None,
        };
        let parts = parts(&query).unwrap();
        let destinations = &parts[0].stages[0].destinations;
        assert_eq!((destinations[1].worker_id.as_str(), destinations[1].readers), ("b", 1));
    }

    #[test]
    fn queries_that_would_lose_rows_are_refused() {
        let to = |names: &[&str]| Output::Broadcast {
            to: names.iter().map(|name| worker(name)).collect(),
        };
        let gather = |inputs: &[StageId]| stage(9, &["a", "b"], Output::Gather, inputs);
        let wrong = [
            vec![],
            vec![stage(1, &["a"], Output::Forward, &[])],
            vec![stage(1, &[], Output::Gather, &[])],
            vec![stage(1, &["a"], hash(&["a", "c"]), &[]), gather(&[1])],
            vec![stage(1, &["a"], to(&["a"]), &[]), gather(&[1])],
            vec![stage(1, &["a"], Output::Forward, &[]), gather(&[1])],
            vec![stage(1, &["a"], Output::Gather, &[]), gather(&[])],
            vec![stage(9, &["a"], Output::Forward, &[]), gather(&[])],
            vec![gather(&[2])],
        ];
        for stages in wrong {
            let error = parts(&HerdQuery { stages, summary: None }).unwrap_err();
            assert_eq!(error.kind, ExceptionType::InvalidInput);
        }
    }
}
