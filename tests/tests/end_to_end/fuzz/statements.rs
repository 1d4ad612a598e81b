//! Random statements, one after another, each made for what the earlier ones have left behind.

use std::borrow::Cow;
use std::collections::VecDeque;

use fastrand::Rng;

use super::gaps::{self, Feature};
use super::model::{Column, Model, Object, Place, Table};
use super::query::{Query, Visible};
use super::types::Type;

/// How many connections a case has on each side.
pub const CONNECTIONS: usize = 2;

/// Tables are kept this small, so that joins of three end soon.
const ROWS_MAX: u32 = 20;
const TABLES_MAX: usize = 8;

/// What of a result counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Rows in any order.
    Rows,
    /// Rows in this order.
    Ordered,
    /// The number of changed rows.
    Changes,
    /// That it went well.
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Statement {
    /// Below [`CONNECTIONS`].
    pub connection: usize,
    pub sql: String,
    /// What a herd gets besides: where in the text, and the text. It says where the rows of a new table go.
    pub herd_clause: Option<(usize, String)>,
    pub shape: Shape,
}

impl Statement {
    /// The text for a herd.
    pub fn on_herd(&self) -> Cow<'_, str> {
        match &self.herd_clause {
            None => Cow::Borrowed(&self.sql),
            Some((place, clause)) => {
                let (before, after) = self.sql.split_at(*place);
                Cow::Owned(format!("{before} {clause}{after}"))
            }
        }
    }
}

type Effect = Box<dyn FnOnce(&mut Generator)>;

/// A statement, and what it changes if it goes well.
pub struct Step {
    pub statement: Statement,
    effect: Option<Effect>,
}

/// Yields statements for ever; the same ones for the same seed, if they go the same way.
pub struct Generator {
    pub rng: Rng,
    /// Whether `dh` is a herd.
    is_herd: bool,
    pub model: Model,
    /// Values for `$1`, `$2` … of the statement that is being made, if it may have some.
    pub parameters: Option<Vec<String>>,
    /// How many table aliases there are.
    pub aliases: u32,
    connection: usize,
    uses_dh: [bool; CONNECTIONS],
    names: u32,
    /// The connection in a transaction, and what there was before it.
    transaction: Option<(usize, Model)>,
    next: VecDeque<Step>,
}

impl Generator {
    pub fn new(seed: u64, is_herd: bool) -> Self {
        let mut generator = Self {
            rng: Rng::with_seed(seed),
            is_herd,
            model: Model::default(),
            parameters: None,
            aliases: 0,
            connection: 0,
            uses_dh: [false; CONNECTIONS],
            names: 0,
            transaction: None,
            next: VecDeque::new(),
        };
        for place in [Place::Dh, Place::Dh, Place::Memory] {
            let mut before = std::mem::take(&mut generator.next);
            let step = generator.create_table(place);
            before.push_back(step);
            before.append(&mut generator.next);
            generator.next = before;
        }
        generator
    }

    /// The next statement. [`Generator::note`] wants to know how it went.
    pub fn step(&mut self) -> Step {
        if let Some(step) = self.next.pop_front() {
            return step;
        }
        let connection = usize::from(self.chance(12));
        self.connection = connection;
        self.aliases = 0;
        let mut step = self.any();
        step.statement.connection = connection;
        for queued in &mut self.next {
            queued.statement.connection = connection;
        }
        step
    }

    /// Takes note of how it went.
    pub fn note(&mut self, step: Step, went_well: bool) {
        if went_well {
            if let Some(effect) = step.effect {
                effect(self);
            }
        } else if self
            .transaction
            .as_ref()
            .is_some_and(|(connection, _)| *connection == step.statement.connection)
        {
            // It is aborted. What else is queued may go on after it.
            let mut rollback = self.end_transaction("ROLLBACK");
            rollback.statement.connection = step.statement.connection;
            self.next.push_front(rollback);
        }
    }

    /// Statements that show all there is.
    pub fn final_look(&mut self) -> Vec<Statement> {
        let mut looks = Vec::new();
        if let Some((connection, _)) = self.transaction.take() {
            looks.push(Statement {
                connection,
                sql: "COMMIT".to_owned(),
                herd_clause: None,
                shape: Shape::Nothing,
            });
        }
        self.connection = 0;
        for table in self.model.tables.clone() {
            let name = self.qualified(&table);
            let mut statements = vec![(describe(&name, table.is_view), Shape::Ordered)];
            if table.is_big {
                // All rows come here, and are compared by what they hash to: as texts they would take a minute.
                statements.push((
                    format!("CREATE OR REPLACE TEMP TABLE seen AS FROM {name}"),
                    Shape::Changes,
                ));
                statements.push((hash_of(&table.columns, "seen"), Shape::Rows));
            } else {
                statements.push((format!("FROM {name}"), Shape::Rows));
            }
            for (sql, shape) in statements {
                looks.push(Statement {
                    connection: 0,
                    sql,
                    herd_clause: None,
                    shape,
                });
            }
        }
        looks
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.rng.usize(..values.len())]
    }

    pub fn pick_where<T: Clone>(&mut self, values: &[T], is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let wanted: Vec<_> = values.iter().filter(|value| is_wanted(value)).collect();
        if wanted.is_empty() {
            return None;
        }
        Some(wanted[self.rng.usize(..wanted.len())].clone())
    }

    pub fn pick_table(&mut self, is_wanted: impl Fn(&Table) -> bool) -> Option<Table> {
        let connection = self.connection;
        // Mostly those of `dh`: a statement with one local table runs here.
        let remote_only = self.chance(75);
        let tables = self.model.tables.clone();
        let is_seen = |table: &Table| (table.place != Place::Temp || connection == 0) && is_wanted(table);
        self.pick_where(&tables, |table| is_seen(table) && (table.is_remote() || !remote_only))
            .or_else(|| self.pick_where(&tables, is_seen))
    }

    pub fn pick_column(&mut self, is_wanted: impl Fn(&Type) -> bool) -> Option<(Table, Column)> {
        let table =
            self.pick_table(|table| !table.is_big && table.columns.iter().any(|column| is_wanted(&column.data_type)))?;
        let column = self.pick_where(&table.columns, |column| is_wanted(&column.data_type))?;
        Some((table, column))
    }

    pub fn pick_object(&mut self, list: impl Fn(&Model) -> &Vec<Object>) -> Option<Object> {
        let objects = list(&self.model).clone();
        self.pick_where(&objects, |_| true)
    }

    /// The table's name in one of the ways in which it can be written.
    pub fn qualified(&mut self, table: &Table) -> String {
        let (name, schema) = (&table.name, &table.schema);
        match table.place {
            Place::Dh => self.in_dh(name, schema.as_deref()),
            Place::Memory if self.uses_dh[self.connection] || self.rng.bool() => format!("memory.main.{name}"),
            Place::Memory | Place::Temp => name.clone(),
        }
    }

    pub fn qualified_object(&mut self, object: &Object) -> String {
        self.in_dh(&object.name, object.schema.as_deref())
    }

    fn in_dh(&mut self, name: &str, schema: Option<&str>) -> String {
        let is_short = self.uses_dh[self.connection] && self.rng.bool();
        match schema {
            Some(schema) if is_short => format!("{schema}.{name}"),
            Some(schema) => format!("dh.{schema}.{name}"),
            None if is_short => name.to_owned(),
            None if self.chance(20) => format!("dh.main.{name}"),
            None => format!("dh.{name}"),
        }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        let number = self.names;
        match self.rng.u32(..10) {
            0 => format!("\"{prefix} {number}\""),
            1 => format!("\"Größe.{prefix}{number}\""),
            2 => format!("\"SELECT{prefix}{number}\""),
            3 => format!("\"{prefix}\"\"{number}\""),
            4 => format!("{}{number}", prefix.to_uppercase()),
            _ => format!("{prefix}{number}"),
        }
    }

    fn statement(&self, sql: String, shape: Shape) -> Step {
        Step {
            statement: Statement {
                connection: self.connection,
                sql,
                herd_clause: None,
                shape,
            },
            effect: None,
        }
    }

    fn step_with(&self, sql: String, shape: Shape, effect: impl FnOnce(&mut Self) + 'static) -> Step {
        Step {
            effect: Some(Box::new(effect)),
            ..self.statement(sql, shape)
        }
    }

    fn query_step(&self, query: &Query) -> Step {
        let shape = if query.is_ordered { Shape::Ordered } else { Shape::Rows };
        self.statement(query.sql.clone(), shape)
    }

    fn any(&mut self) -> Step {
        let is_inside = self
            .transaction
            .as_ref()
            .is_some_and(|(connection, _)| *connection == self.connection);
        if is_inside && self.chance(12) {
            let end = self.pick(&["COMMIT", "COMMIT", "ROLLBACK"]);
            return self.end_transaction(end);
        }
        if self.transaction.is_none() && self.chance(5) {
            let connection = self.connection;
            let tables = self.model.tables.clone();
            let table = self.pick_where(&tables, Table::is_remote);
            if let (Some(table), false) = (table, gaps::has(Feature::LazyBegin)) {
                let name = self.qualified(&table);
                let first = self.statement(format!("SELECT count(*) AS c0 FROM {name}"), Shape::Rows);
                self.next.push_back(first);
            }
            return self.step_with("BEGIN".to_owned(), Shape::Nothing, move |generator| {
                generator.transaction = Some((connection, generator.model.clone()));
            });
        }
        match self.rng.u32(..100) {
            0..30 => {
                let query = self.query(2);
                self.query_step(&query)
            }
            30..40 => {
                let query = self.unnamed_query();
                self.query_step(&query)
            }
            40..62 => self.insert(),
            62..70 => self.update(),
            70..74 => self.delete(),
            74..77 => self.merge(),
            77..81 => self.prepared(),
            81..98 => self.definition(),
            98 => {
                let (connection, dh) = (self.connection, self.rng.bool());
                let sql = if dh { "USE dh" } else { "USE memory" };
                self.step_with(sql.to_owned(), Shape::Nothing, move |generator| {
                    generator.uses_dh[connection] = dh;
                })
            }
            _ => self.bulk(),
        }
    }

    fn end_transaction(&mut self, end: &'static str) -> Step {
        self.step_with(end.to_owned(), Shape::Nothing, move |generator| {
            if let Some((_, before)) = generator.transaction.take()
                && end == "ROLLBACK"
            {
                generator.model = before;
            }
        })
    }

    // Rows.

    fn row(&mut self, columns: &[Column], is_with_defaults: bool) -> String {
        let values: Vec<_> = columns
            .iter()
            .map(|column| match is_with_defaults && self.chance(8) {
                true => "DEFAULT".to_owned(),
                false => column.data_type.value(&mut self.rng),
            })
            .collect();
        format!("({})", values.join(", "))
    }

    fn some_columns(&mut self, table: &Table) -> Vec<Column> {
        let mut columns = table.writable();
        if self.chance(30) {
            self.rng.shuffle(&mut columns);
            let keep = self.rng.usize(1..=columns.len());
            columns.truncate(keep);
        }
        columns
    }

    fn insert(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| !table.is_view && !table.is_big) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let columns = self.some_columns(&table);
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let is_listed = columns.len() < table.columns.len() || self.chance(30);
        let list = if is_listed {
            format!(" ({})", names.join(", "))
        } else {
            String::new()
        };
        let rows = match self.rng.u32(..10) {
            0..6 => {
                let rows: Vec<_> = (0..self.rng.usize(1..5)).map(|_| self.row(&columns, true)).collect();
                format!("{list} VALUES {}", rows.join(", "))
            }
            6 if self.chance(20) => " DEFAULT VALUES".to_owned(),
            7 => {
                let query = self.rows_for(&columns, true);
                format!(" BY NAME {query}")
            }
            _ => {
                let query = self.rows_for(&columns, false);
                format!("{list} {query}")
            }
        };
        let (verb, conflict) = match self.rng.u32(..12) {
            0 => ("INSERT OR IGNORE INTO", String::new()),
            1 => ("INSERT OR REPLACE INTO", String::new()),
            2 => ("INSERT INTO", " ON CONFLICT DO NOTHING".to_owned()),
            3 | 4 if !table.key.is_empty() => ("INSERT INTO", self.on_conflict(&table)),
            _ => ("INSERT INTO", String::new()),
        };
        let is_of_keys = (0..table.columns.len()).all(|index| table.key.contains(&index));
        let is_replacing = verb == "INSERT OR REPLACE INTO";
        let is_left_out = (is_replacing && is_of_keys && !gaps::has(Feature::ReplacedKeys))
            || ((is_replacing || conflict.contains(" DO UPDATE ")) && !may_return_changes(&table));
        let is_returning = self.chance(15) && !is_left_out;
        let returning = if is_returning {
            self.returning(&table, None)
        } else {
            String::new()
        };
        let shape = if is_returning { Shape::Rows } else { Shape::Changes };
        self.statement(format!("{verb} {name}{rows}{conflict}{returning}"), shape)
    }

    fn on_conflict(&mut self, table: &Table) -> String {
        let key: Vec<_> = table
            .key
            .iter()
            .map(|index| table.columns[*index].name.as_str())
            .collect();
        let key = key.join(", ");
        let others = table.writable();
        let other = self.pick_where(&others, |column| !key.contains(&column.name));
        match other {
            Some(other) if self.chance(80) => {
                let value = match self.rng.u32(..3) {
                    0 => other.data_type.value(&mut self.rng),
                    _ => format!("excluded.{}", other.name),
                };
                let filter = match self.chance(30) {
                    true => format!(" WHERE excluded.{} IS NOT NULL", other.name),
                    false => String::new(),
                };
                format!(" ON CONFLICT ({key}) DO UPDATE SET {} = {value}{filter}", other.name)
            }
            _ => format!(" ON CONFLICT ({key}) DO NOTHING"),
        }
    }

    fn returning(&mut self, table: &Table, alias: Option<&str>) -> String {
        if self.chance(40) {
            return " RETURNING *".to_owned();
        }
        let scope: Vec<_> = table
            .columns
            .iter()
            .map(|column| Visible {
                sql: match alias {
                    Some(alias) => format!("{alias}.{}", column.name),
                    None => column.name.clone(),
                },
                data_type: column.data_type.clone(),
            })
            .collect();
        let column = self
            .pick(&scope.iter().map(|column| column.sql.as_str()).collect::<Vec<_>>())
            .to_owned();
        let expression = self.integer(&scope, 1);
        format!(" RETURNING {column}, {expression} AS extra")
    }

    /// A query whose rows fit `columns`.
    fn rows_for(&mut self, columns: &[Column], by_name: bool) -> String {
        let source = match self.pick_table(|table| !table.is_big) {
            Some(source) if self.chance(85) => source,
            _ => {
                let rows: Vec<_> = columns
                    .iter()
                    .map(|column| column.data_type.value(&mut self.rng))
                    .collect();
                let rows = named(&rows, columns, by_name);
                return format!("SELECT {rows} FROM range({})", self.rng.u32(..4));
            }
        };
        let alias = Some("src");
        let scope = visible(&source, alias);
        let mut values = Vec::new();
        for column in columns {
            let same = self.pick_where(&scope, |visible| visible.data_type == column.data_type);
            values.push(match same {
                Some(same) => same.sql,
                None if column.data_type.is("VARCHAR") && self.rng.bool() => self.expression(&scope, 1).0,
                None if column.data_type.is_integer() && self.rng.bool() => self.integer(&scope, 1),
                None => column.data_type.value(&mut self.rng),
            });
        }
        let values = named(&values, columns, by_name);
        let name = self.qualified(&source);
        let condition = self.condition(&scope, 1);
        let limit = self.rng.u32(1..ROWS_MAX);
        format!("SELECT {values} FROM {name} AS src WHERE {condition} ORDER BY ALL LIMIT {limit}")
    }

    /// The text names a table of this process.
    fn names_local(&self, sql: &str) -> bool {
        let is_named = |table: &Table| !table.is_remote() && sql.contains(&table.name);
        self.model.tables.iter().any(is_named)
    }

    fn update(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| !table.is_view && !table.is_big) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let scope = visible(&table, None);
        let mut columns = table.writable();
        self.rng.shuffle(&mut columns);
        columns.truncate(self.rng.usize(1..=2));
        let mut assignments = Vec::new();
        for column in &columns {
            let value = match self.rng.u32(..4) {
                0 if column.data_type.is_integer() => self.integer(&scope, 1),
                1 if column.data_type.is("VARCHAR") => self.expression(&scope, 1).0,
                2 => "DEFAULT".to_owned(),
                _ => column.data_type.value(&mut self.rng),
            };
            assignments.push(format!("{} = {value}", column.name));
        }
        let assignments = assignments.join(", ");
        let from = if self.chance(25) {
            self.unique_source(&table)
        } else {
            None
        };
        let (from, condition) = match from {
            Some((source, on)) => (format!(" FROM {source}"), on),
            None => (String::new(), self.condition(&scope, 1)),
        };
        let is_returning = self.chance(20);
        let returning = if is_returning {
            self.returning(&table, None)
        } else {
            String::new()
        };
        let shape = if is_returning { Shape::Rows } else { Shape::Changes };
        let filter = if self.chance(85) || !from.is_empty() {
            format!(" WHERE {condition}")
        } else {
            String::new()
        };
        let sql = format!("UPDATE {name} SET {assignments}{from}{filter}{returning}");
        self.statement(sql, shape)
    }

    /// Rows that each meet a row of `table` once at most: a table expression, and the condition.
    fn unique_source(&mut self, table: &Table) -> Option<(String, String)> {
        let own = self.pick_where(&table.columns, |column| column.data_type.is_key())?;
        let wanted = own.data_type.clone();
        if wanted.is_integer() && self.chance(30) {
            return Some(("range(4) AS s(k)".to_owned(), format!("{} = s.k", own.name)));
        }
        let (source, column) = self.pick_column(move |data_type| *data_type == wanted)?;
        let source = self.qualified(&source);
        Some((
            format!(
                "(SELECT {0} AS k, count(*) AS many FROM {source} GROUP BY {0}) AS s",
                column.name
            ),
            format!("{} = s.k", own.name),
        ))
    }

    fn delete(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| !table.is_view && !table.is_big) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let scope = visible(&table, None);
        if self.chance(4) {
            return self.statement(format!("TRUNCATE {name}"), Shape::Nothing);
        }
        let using = if self.chance(30) {
            self.unique_source(&table)
        } else {
            None
        };
        let (using, condition) = match using {
            Some((source, on)) => (format!(" USING {source}"), on),
            None => (String::new(), self.condition(&scope, 2)),
        };
        let is_returning = using.is_empty() && self.chance(20);
        let returning = if is_returning {
            self.returning(&table, None)
        } else {
            String::new()
        };
        let shape = if is_returning { Shape::Rows } else { Shape::Changes };
        let sql = format!("DELETE FROM {name}{using} WHERE {condition}{returning}");
        self.statement(sql, shape)
    }

    fn merge(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| !table.is_view && !table.is_big) else {
            return self.create_table(Place::Dh);
        };
        let Some((source, on)) = self.unique_source(&table) else {
            return self.delete();
        };
        let name = self.qualified(&table);
        let columns = table.writable();
        let column = self.pick_where(&columns, |_| true).expect("a column");
        let value = column.data_type.value(&mut self.rng);
        let mut clauses = match self.rng.u32(..4) {
            0 => "WHEN MATCHED THEN DELETE".to_owned(),
            1 => "WHEN MATCHED AND s.k IS NOT NULL THEN DO NOTHING".to_owned(),
            _ => format!("WHEN MATCHED THEN UPDATE SET {} = {value}", column.name),
        };
        // Whether a key is free again that the same statement deletes depends on who still reads the old row.
        let reuses_key = !table.key.is_empty() && clauses.ends_with("DELETE");
        if self.chance(50) && !reuses_key {
            let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            let row = self.row(&columns, false);
            clauses.push_str(&format!(
                " WHEN NOT MATCHED THEN INSERT ({}) VALUES {row}",
                names.join(", ")
            ));
        }
        if self.chance(15) && table.key.is_empty() {
            clauses.push_str(" WHEN NOT MATCHED BY SOURCE THEN DELETE");
        }
        let is_returning = self.chance(15) && may_return_changes(&table);
        let returning = if is_returning { " RETURNING merge_action" } else { "" };
        let shape = if is_returning { Shape::Rows } else { Shape::Changes };
        let on = on.replacen(&column_of(&on), &format!("tgt.{}", column_of(&on)), 1);
        let sql = format!("MERGE INTO {name} AS tgt USING {source} ON {on} {clauses}{returning}");
        self.statement(sql, shape)
    }

    fn prepared(&mut self) -> Step {
        let name = self.name("p");
        self.parameters = Some(Vec::new());
        let (sql, shape) = match self.rng.u32(..4) {
            0 => match self.pick_table(|table| !table.is_view && !table.is_big) {
                Some(table) => {
                    let columns = table.writable();
                    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
                    let values: Vec<_> = columns
                        .iter()
                        .map(|column| column.data_type.value(&mut self.rng))
                        .collect();
                    let marks: Vec<_> = (1..=values.len()).map(|number| format!("${number}")).collect();
                    self.parameters = Some(values);
                    let target = self.qualified(&table);
                    let sql = format!(
                        "INSERT INTO {target} ({}) VALUES ({})",
                        names.join(", "),
                        marks.join(", ")
                    );
                    (sql, Shape::Changes)
                }
                None => ("SELECT 1 AS c0".to_owned(), Shape::Rows),
            },
            1 => {
                let step = if self.rng.bool() { self.update() } else { self.delete() };
                let returning = step
                    .statement
                    .sql
                    .split_once(" RETURNING ")
                    .map_or("", |(_, list)| list);
                if returning.contains('$') {
                    // DuckDB has no parameters there; the duckling gets their values.
                    self.parameters = Some(Vec::new());
                    ("SELECT 1 AS c0".to_owned(), Shape::Rows)
                } else {
                    (step.statement.sql, step.statement.shape)
                }
            }
            _ => {
                let query = self.query(1);
                let shape = if query.is_ordered { Shape::Ordered } else { Shape::Rows };
                (query.sql, shape)
            }
        };
        let values = self.parameters.take().unwrap_or_default();
        let execute = match values.is_empty() {
            true => format!("EXECUTE {name}"),
            false => format!("EXECUTE {name}({})", values.join(", ")),
        };
        for _ in 0..self.rng.usize(1..3) {
            let step = self.statement(execute.clone(), shape);
            self.next.push_back(step);
        }
        let step = self.statement(format!("DEALLOCATE {name}"), Shape::Nothing);
        self.next.push_back(step);
        self.statement(format!("PREPARE {name} AS {sql}"), Shape::Nothing)
    }

    /// Thousands of rows, up or down.
    fn bulk(&mut self) -> Step {
        let name = self.name("big");
        let rows = self.pick(&[2049, 5000, 70_000]);
        let types: Vec<_> = (0..self.rng.usize(1..4))
            .map(|_| Type::random(&mut self.rng, 1))
            .collect();
        let place = self.pick(&[Place::Dh, Place::Dh, Place::Memory]);
        let mut items = vec!["i AS n".to_owned()];
        let mut columns = vec![Column {
            name: "n".to_owned(),
            data_type: Type::Scalar("BIGINT"),
            is_generated: false,
        }];
        for (index, data_type) in types.into_iter().enumerate() {
            let (a, b) = (data_type.value(&mut self.rng), data_type.value(&mut self.rng));
            items.push(format!("CASE WHEN i % 3 = 0 THEN {a} ELSE {b} END AS v{index}"));
            columns.push(Column {
                name: format!("v{index}"),
                data_type,
                is_generated: false,
            });
        }
        let table = Table {
            place,
            schema: None,
            name,
            columns,
            key: Vec::new(),
            is_view: false,
            is_big: true,
        };
        let target = self.qualified(&table);
        let source = self.pick_table(|source| source.is_big);
        let (sql, table) = match source {
            Some(source) if self.rng.bool() => {
                let from = self.qualified(&source);
                let copy = Table {
                    columns: source.columns.clone(),
                    ..table
                };
                (format!("CREATE TABLE {target} AS FROM {from} WHERE n % 2 = 0"), copy)
            }
            _ => (
                format!(
                    "CREATE TABLE {target} AS SELECT {} FROM range({rows}) r(i)",
                    items.join(", ")
                ),
                table,
            ),
        };
        let looks = [
            (hash_of(&table.columns, &target), Shape::Rows),
            (format!("FROM {target} WHERE n % 1000 = 17"), Shape::Rows),
            (format!("FROM {target} ORDER BY n LIMIT 3"), Shape::Ordered),
        ];
        for (sql, shape) in looks {
            let step = self.statement(sql, shape);
            self.next.push_back(step);
        }
        let before = "CREATE TABLE ".len() + target.len();
        let clause = self.herd_clause(&table).map(|clause| (before, clause));
        let mut step = self.step_with(sql, Shape::Changes, move |generator| generator.model.tables.push(table));
        step.statement.herd_clause = clause;
        step
    }

    // Definitions.

    fn definition(&mut self) -> Step {
        if self.model.tables.len() > TABLES_MAX {
            return self.drop_table();
        }
        match self.rng.u32(..30) {
            0..5 => self.create_table(Place::Dh),
            5 => {
                let place = if self.connection == 0 {
                    self.pick(&[Place::Memory, Place::Temp])
                } else {
                    Place::Memory
                };
                self.create_table(place)
            }
            6..10 => self.create_table_as(),
            10..13 => self.create_view(),
            13 => self.drop_table(),
            14..20 => self.alter(),
            20..22 => self.index(),
            22 => self.schema(),
            23 => self.create_type(),
            24 => self.sequence(),
            25 | 26 => self.create_macro(),
            27 => self.comment(),
            _ if self.transaction.is_some() && !gaps::has(Feature::LazyBegin) => self.comment(),
            _ => self.look_around(),
        }
    }

    fn columns(&mut self) -> Vec<Column> {
        let mut pool = vec![
            "a",
            "b",
            "k",
            "\"order\"",
            "\"größe\"",
            "\"with space\"",
            "\"x.y\"",
            "\"q\"\"uote\"",
            "日本",
            "\"Mixed\"",
            "\"\u{1f986}\"",
        ];
        self.rng.shuffle(&mut pool);
        let count = self.rng.usize(1..6);
        let columns = pool.into_iter().take(count);
        columns
            .map(|name| Column {
                name: name.to_owned(),
                data_type: Type::random(&mut self.rng, 2),
                is_generated: false,
            })
            .collect()
    }

    fn new_table(&mut self, place: Place, prefix: &str) -> Table {
        let schemas = self.model.schemas.clone();
        let schema = match place {
            Place::Dh if self.chance(40) => self.pick_where(&schemas, |_| true),
            _ => None,
        };
        Table {
            place,
            schema,
            name: self.name(if place == Place::Dh { prefix } else { "local" }),
            columns: Vec::new(),
            key: Vec::new(),
            is_view: false,
            is_big: false,
        }
    }

    fn create_table(&mut self, place: Place) -> Step {
        let mut table = self.new_table(place, "t");
        table.columns = self.columns();
        let types = self.model.types.clone();
        // Types are made in `main`.
        if place == Place::Dh
            && table.schema.is_none()
            && self.chance(30)
            && let Some((name, inner)) = self.pick_where(&types, |_| true)
        {
            let name = match self.rng.bool() {
                true => format!("dh.{name}"),
                false => name,
            };
            table.columns[0].data_type = Type::Named(name, Box::new(inner));
        }
        let mut definitions = Vec::new();
        for column in &table.columns {
            let mut definition = format!("{} {}", column.name, column.data_type.sql());
            match self.rng.u32(..12) {
                0 => definition.push_str(" NOT NULL"),
                1 | 2 => {
                    let default = column.data_type.value(&mut self.rng);
                    definition.push_str(&format!(" DEFAULT {default}"));
                }
                3 if column.data_type.is_integer() => {
                    definition.push_str(&format!(" CHECK ({} < 100)", column.name));
                }
                _ => {}
            }
            definitions.push(definition);
        }
        if self.chance(10) {
            let first = &table.columns[0].name;
            definitions.push(format!("gen BOOLEAN GENERATED ALWAYS AS ({first} IS NULL) VIRTUAL"));
            table.columns.push(Column {
                name: "gen".to_owned(),
                data_type: Type::Scalar("BOOLEAN"),
                is_generated: true,
            });
        }
        let keys: Vec<_> = (0..table.columns.len())
            .filter(|index| table.columns[*index].data_type.is_key() && !table.columns[*index].is_generated)
            .collect();
        if self.chance(45) && !keys.is_empty() {
            let width = self.rng.usize(1..=keys.len().min(2));
            table.key = keys[..width].to_vec();
            let names: Vec<_> = table
                .key
                .iter()
                .map(|index| table.columns[*index].name.as_str())
                .collect();
            let kind = self.pick(&["PRIMARY KEY", "PRIMARY KEY", "UNIQUE"]);
            definitions.push(format!("{kind} ({})", names.join(", ")));
        }
        if self.chance(15)
            && let Some(foreign_key) = self.foreign_key(&table)
        {
            definitions.push(foreign_key);
        }
        let name = match place {
            Place::Temp => table.name.clone(),
            _ => self.qualified(&table),
        };
        let create = match place {
            Place::Temp => "CREATE TEMPORARY TABLE",
            _ => self.pick(&[
                "CREATE TABLE",
                "CREATE TABLE",
                "CREATE OR REPLACE TABLE",
                "CREATE TABLE IF NOT EXISTS",
            ]),
        };
        let sql = format!("{create} {name} ({})", definitions.join(", "));
        let clause = self.herd_clause(&table).map(|clause| (sql.len(), clause));
        for _ in 0..2 {
            let columns = table.writable();
            let rows: Vec<_> = (0..self.rng.usize(1..7)).map(|_| self.row(&columns, false)).collect();
            let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            let sql = format!("INSERT INTO {name} ({}) VALUES {}", names.join(", "), rows.join(", "));
            let step = self.statement(sql, Shape::Changes);
            self.next.push_back(step);
        }
        let mut step = self.step_with(sql, Shape::Nothing, move |generator| generator.model.tables.push(table));
        step.statement.herd_clause = clause;
        step
    }

    /// Where the rows of a new table go; `None` for where the herd puts them.
    fn herd_clause(&mut self, table: &Table) -> Option<String> {
        if !self.is_herd || table.place != Place::Dh {
            return None;
        }
        let partitions = self.pick(&[1, 2, 5, 16]);
        match self.rng.u32(..10) {
            0..3 => None,
            3 => Some("WITH (distribution = 'replicated')".to_owned()),
            4 => Some(format!("WITH (distribution = 'even', partitions = {partitions})")),
            _ => {
                let of_key = !table.key.is_empty();
                let columns = table.columns.iter().enumerate();
                let mut keys: Vec<_> = columns
                    .filter(|(index, column)| !column.is_generated && (!of_key || table.key.contains(index)))
                    .filter(|(_, column)| column.data_type.is_hashed())
                    .map(|(_, column)| column.name.clone())
                    .collect();
                self.rng.shuffle(&mut keys);
                keys.truncate(self.rng.usize(1..=2));
                if keys.is_empty() {
                    return None;
                }
                Some(format!(
                    "PARTITIONED BY ({}) WITH (partitions = {partitions})",
                    keys.join(", ")
                ))
            }
        }
    }

    fn foreign_key(&mut self, table: &Table) -> Option<String> {
        let other = self
            .pick_table(|other| other.place == table.place && other.schema == table.schema && other.key.len() == 1)?;
        let key = &other.columns[other.key[0]];
        let own = self.pick_where(&table.columns, |column| column.data_type == key.data_type)?;
        Some(format!(
            "FOREIGN KEY ({}) REFERENCES {} ({})",
            own.name, other.name, key.name
        ))
    }

    fn create_table_as(&mut self) -> Step {
        let place = match self.rng.u32(..4) {
            0 => Place::Memory,
            1 if self.connection == 0 => Place::Temp,
            _ => Place::Dh,
        };
        let mut table = self.new_table(place, "t");
        let query = self.query(1);
        table.columns = query.columns;
        let name = self.qualified(&table);
        let create = if place == Place::Temp {
            "CREATE TEMPORARY TABLE"
        } else {
            "CREATE TABLE"
        };
        let sql = format!(
            "{create} {name} AS SELECT * FROM ({}) ORDER BY ALL LIMIT {ROWS_MAX}",
            query.sql
        );
        let step = self.statement(describe(&name, false), Shape::Ordered);
        self.next.push_back(step);
        let before = create.len() + 1 + name.len();
        let clause = self.herd_clause(&table).map(|clause| (before, clause));
        let mut step = self.step_with(sql, Shape::Changes, move |generator| generator.model.tables.push(table));
        step.statement.herd_clause = clause;
        step
    }

    fn create_view(&mut self) -> Step {
        let mut table = self.new_table(Place::Dh, "v");
        if !gaps::has(Feature::ViewsInSchemas) {
            table.schema = None;
        }
        let query = self.query(1);
        let is_pivot = query.sql.contains(" PIVOT ") && !gaps::has(Feature::PivotInView);
        if is_pivot || self.names_local(&query.sql) {
            return self.create_table_as();
        }
        table.columns = query.columns;
        table.is_view = true;
        let name = self.qualified(&table);
        let create = self.pick(&["CREATE VIEW", "CREATE OR REPLACE VIEW"]);
        let sql = format!("{create} {name} AS {}", query.sql);
        // DuckDB keeps a view's text as it is bound, so its order is not one of the table that it stands for.
        self.step_with(sql, Shape::Nothing, move |generator| generator.model.tables.push(table))
    }

    fn drop_table(&mut self) -> Step {
        let Some(table) = self.pick_table(|_| true) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let kind = if table.is_view { "VIEW" } else { "TABLE" };
        let exists = self.pick(&["", "", "IF EXISTS "]);
        let behavior = self.pick(&["", "", " CASCADE"]);
        self.step_with(
            format!("DROP {kind} {exists}{name}{behavior}"),
            Shape::Nothing,
            move |generator| {
                generator.model.remove(&table.name);
            },
        )
    }

    fn alter(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| table.is_remote() && !table.is_view) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let own = table.name.clone();
        let column = self.pick_where(&table.columns, |_| true).expect("a column");
        let index = table
            .columns
            .iter()
            .position(|other| other.name == column.name)
            .unwrap_or(0);
        let old = &column.name;
        match self.rng.u32(..12) {
            0..3 => {
                let data_type = Type::random(&mut self.rng, 2);
                let new = self.name("c");
                let default = match self.rng.bool() {
                    true => format!(" DEFAULT {}", data_type.value(&mut self.rng)),
                    false => String::new(),
                };
                let exists = self.pick(&["", "IF NOT EXISTS "]);
                let sql = format!(
                    "ALTER TABLE {name} ADD COLUMN {exists}{new} {}{default}",
                    data_type.sql()
                );
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.columns.push(Column {
                            name: new,
                            data_type,
                            is_generated: false,
                        });
                    }
                })
            }
            3 => {
                let sql = format!("ALTER TABLE {name} DROP COLUMN {old}");
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.columns.remove(index);
                        table.key.clear();
                    }
                })
            }
            4 | 5 => {
                let new = self.name("c");
                let sql = format!("ALTER TABLE {name} RENAME COLUMN {old} TO {new}");
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.columns[index].name = new;
                    }
                })
            }
            6 => {
                let new = self.name("t");
                let sql = format!("ALTER TABLE {name} RENAME TO {new}");
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.name = new;
                    }
                })
            }
            7 | 8 => {
                let data_type = Type::random(&mut self.rng, 1);
                let using = match self.rng.u32(..3) {
                    0 => format!(" USING TRY_CAST({old} AS {})", data_type.sql()),
                    _ => String::new(),
                };
                let sql = format!("ALTER TABLE {name} ALTER {old} TYPE {}{using}", data_type.sql());
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.columns[index].data_type = data_type;
                    }
                })
            }
            9 => {
                let value = column.data_type.value(&mut self.rng);
                self.statement(
                    format!("ALTER TABLE {name} ALTER {old} SET DEFAULT {value}"),
                    Shape::Nothing,
                )
            }
            10 => {
                let what = self.pick(&["SET NOT NULL", "DROP NOT NULL", "DROP DEFAULT"]);
                self.statement(format!("ALTER TABLE {name} ALTER {old} {what}"), Shape::Nothing)
            }
            _ => {
                let sql = format!("ALTER TABLE {name} ADD PRIMARY KEY ({old})");
                self.step_with(sql, Shape::Nothing, move |generator| {
                    if let Some(table) = generator.model.table(&own) {
                        table.key = vec![index];
                    }
                })
            }
        }
    }

    fn index(&mut self) -> Step {
        if let Some(object) = self.pick_object(|model| &model.indexes)
            && self.chance(40)
        {
            let name = self.qualified_object(&object);
            return self.step_with(format!("DROP INDEX {name}"), Shape::Nothing, move |generator| {
                generator.model.indexes.retain(|index| index.name != object.name);
            });
        }
        let Some(table) = self.pick_table(|table| table.is_remote() && !table.is_view) else {
            return self.create_table(Place::Dh);
        };
        let on = self.qualified(&table);
        let column = self.pick_where(&table.columns, |_| true).expect("a column");
        let object = Object {
            name: self.name("i"),
            schema: table.schema,
        };
        let unique = self.pick(&["", "", "UNIQUE "]);
        let what = match self.rng.u32(..4) {
            0 => format!("({} IS NULL)", column.name),
            _ => column.name,
        };
        let sql = format!("CREATE {unique}INDEX {} ON {on} ({what})", object.name);
        self.step_with(sql, Shape::Nothing, move |generator| {
            generator.model.indexes.push(object)
        })
    }

    fn schema(&mut self) -> Step {
        let schemas = self.model.schemas.clone();
        if let (Some(schema), true) = (self.pick_where(&schemas, |_| true), self.chance(25)) {
            let behavior = self.pick(&["", " CASCADE"]);
            let sql = format!("DROP SCHEMA dh.{schema}{behavior}");
            return self.step_with(sql, Shape::Nothing, move |generator| {
                let inside = Some(schema.as_str());
                generator.model.tables.retain(|table| table.schema.as_deref() != inside);
                generator.model.schemas.retain(|other| *other != schema);
            });
        }
        let schema = self.name("s");
        self.step_with(format!("CREATE SCHEMA dh.{schema}"), Shape::Nothing, move |generator| {
            generator.model.schemas.push(schema);
        })
    }

    fn create_type(&mut self) -> Step {
        let name = self.name("mood");
        let data_type = match self.rng.bool() {
            true => Type::Enum(vec!["sad", "ok", "größe"]),
            false => Type::random(&mut self.rng, 1),
        };
        let sql = format!("CREATE TYPE dh.{name} AS {}", data_type.sql());
        self.step_with(sql, Shape::Nothing, move |generator| {
            generator.model.types.push((name, data_type))
        })
    }

    fn sequence(&mut self) -> Step {
        if let (Some(object), true) = (self.pick_object(|model| &model.sequences), self.chance(60)) {
            let table = self.pick_table(|table| table.is_remote() && !table.is_big);
            if let (Some(table), true) = (table, self.uses_dh[self.connection]) {
                let from = self.qualified(&table);
                let name = object.name.replace('\'', "''");
                return self.statement(
                    format!("SELECT count(nextval('{name}')) AS c0 FROM {from}"),
                    Shape::Rows,
                );
            }
            if self.rng.bool() {
                let name = object.name.replace('\'', "''");
                return self.statement(format!("SELECT nextval('dh.{name}') AS c0"), Shape::Rows);
            }
            let name = self.qualified_object(&object);
            return self.step_with(format!("DROP SEQUENCE {name}"), Shape::Nothing, move |generator| {
                generator.model.sequences.retain(|other| other.name != object.name);
            });
        }
        let object = Object {
            name: self.name("q"),
            schema: None,
        };
        let name = self.qualified_object(&object);
        let options = self.pick(&["", " START 5 INCREMENT BY 2", " MINVALUE 1 MAXVALUE 3 CYCLE"]);
        self.step_with(
            format!("CREATE SEQUENCE {name}{options}"),
            Shape::Nothing,
            move |generator| {
                generator.model.sequences.push(object);
            },
        )
    }

    fn create_macro(&mut self) -> Step {
        let object = Object {
            name: self.name("m"),
            schema: None,
        };
        let name = self.qualified_object(&object);
        if self.rng.bool() {
            let sql = format!("CREATE MACRO {name}(n) AS TABLE SELECT range AS n FROM range(n)");
            return self.step_with(sql, Shape::Nothing, move |generator| {
                generator.model.table_macros.push(object);
            });
        }
        let body = self.pick(&[
            "TRY(a + 1)",
            "CASE WHEN a IS NULL THEN 'none' ELSE 'some' END",
            "[a, a]",
        ]);
        let sql = format!("CREATE OR REPLACE MACRO {name}(a) AS {body}");
        self.step_with(sql, Shape::Nothing, move |generator| {
            generator.model.macros.push(object)
        })
    }

    fn comment(&mut self) -> Step {
        let Some(table) = self.pick_table(|table| table.is_remote()) else {
            return self.create_table(Place::Dh);
        };
        let name = self.qualified(&table);
        let column = self.pick_where(&table.columns, |_| true).expect("a column").name;
        let kind = if table.is_view { "VIEW" } else { "TABLE" };
        let sql = match self.rng.bool() {
            true => format!("COMMENT ON {kind} {name} IS 'it''s größe'"),
            false => format!("COMMENT ON COLUMN {name}.{column} IS NULL"),
        };
        self.statement(sql, Shape::Nothing)
    }

    /// What the catalog says of `dh`.
    fn look_around(&mut self) -> Step {
        if self.rng.bool() {
            let sql = self.pick(&[
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'dh' ORDER BY ALL",
                "SELECT schema_name, view_name FROM duckdb_views() \
                 WHERE database_name = 'dh' AND NOT internal ORDER BY ALL",
                "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE table_catalog = 'dh' ORDER BY ALL",
            ]);
            return self.statement(sql.to_owned(), Shape::Ordered);
        }
        if self.chance(20) {
            let sql = "SELECT name FROM (SHOW ALL TABLES) WHERE database = 'dh' ORDER BY ALL";
            return self.statement(sql.to_owned(), Shape::Ordered);
        }
        let sql = self.pick(&[
            "SELECT schema_name, table_name, column_name, column_index, data_type FROM duckdb_columns() \
             WHERE database_name = 'dh' AND NOT internal ORDER BY ALL",
            "SELECT table_schema, table_name, column_name, ordinal_position, data_type, is_nullable \
             FROM information_schema.columns WHERE table_catalog = 'dh' ORDER BY ALL",
            "SELECT current_database() AS d, current_schema() AS s ORDER BY ALL",
        ]);
        self.statement(sql.to_owned(), Shape::Ordered)
    }
}

fn visible(table: &Table, alias: Option<&str>) -> Vec<Visible> {
    let columns = table.columns.iter().map(|column| Visible {
        sql: match alias {
            Some(alias) => format!("{alias}.{}", column.name),
            None => column.name.clone(),
        },
        data_type: column.data_type.clone(),
    });
    columns.collect()
}

/// Whether a statement that changes rows of `table` that are there may have RETURNING.
fn may_return_changes(table: &Table) -> bool {
    gaps::has(Feature::ReturningOfStructs) || !table.columns.iter().any(|column| column.data_type.may_have_struct())
}

fn named(values: &[String], columns: &[Column], by_name: bool) -> String {
    let items: Vec<_> = values
        .iter()
        .zip(columns)
        .enumerate()
        .map(|(index, (value, column))| match by_name {
            true => format!("{value} AS {}", column.name),
            false => format!("{value} AS c{index}"),
        })
        .collect();
    items.join(", ")
}

/// DESCRIBE, as far as it can be compared.
pub fn describe(table: &str, is_view: bool) -> String {
    // The keys, defaults and NOT NULL of a view's columns are not known here.
    match is_view {
        true => format!("SELECT column_name, column_type FROM (DESCRIBE {table})"),
        false => format!("FROM (DESCRIBE {table})"),
    }
}

/// The left side of `column = s.k`.
fn column_of(on: &str) -> String {
    on.strip_suffix(" = s.k").unwrap_or(on).to_owned()
}

/// Says in one row what all rows of a big table are.
fn hash_of(columns: &[Column], table: &str) -> String {
    let columns: Vec<_> = columns.iter().map(|column| format!("({})", column.name)).collect();
    format!(
        "SELECT count(*) AS c, sum(n) AS s, bit_xor(hash({})) AS h FROM {table}",
        columns.join(", ")
    )
}
