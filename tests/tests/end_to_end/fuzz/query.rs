//! Random queries and expressions.

use super::gaps::{self, Feature};
use super::model::{Column, Place, Table};
use super::statements::{Generator, describe};
use super::types::Type;

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub struct Visible {
    /// As written: `x1."größe"`.
    pub sql: String,
    pub data_type: Type,
}

/// A query and what it yields.
#[derive(Debug)]
pub struct Query {
    pub sql: String,
    /// Names as written in SQL, if all are known.
    pub columns: Vec<Column>,
    /// ORDER BY leaves no choice.
    pub is_ordered: bool,
    /// It names something of this process.
    pub is_local: bool,
}

/// What FROM offers.
#[derive(Debug, Default)]
struct From {
    sql: String,
    scope: Vec<Visible>,
    is_local: bool,
}

const COMPARISONS: &[&str] = &[
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM",
];

fn columns_of(scope: &[Visible]) -> String {
    let columns: Vec<_> = scope.iter().map(|column| column.sql.as_str()).collect();
    columns.join(", ")
}

impl Generator {
    /// A value of the type: a literal, or where parameters are being collected, sometimes one of these.
    fn value(&mut self, data_type: &Type) -> String {
        let value = data_type.value(&mut self.rng);
        if self.rng.bool()
            && let Some(parameters) = &mut self.parameters
        {
            parameters.push(value);
            return format!("${}", parameters.len());
        }
        value
    }

    /// A random expression over `scope`.
    pub fn expression(&mut self, scope: &[Visible], depth: u32) -> (String, Type) {
        if depth == 0 || self.chance(35) {
            if let (Some(column), true) = (self.pick_where(scope, |_| true), self.chance(80)) {
                return (column.sql, column.data_type);
            }
            let data_type = Type::random(&mut self.rng, 1);
            return (data_type.value(&mut self.rng), data_type);
        }
        match self.rng.u32(..16) {
            0..3 => (self.integer(scope, depth), Type::Unknown),
            3..5 => (self.text(scope, depth), Type::Scalar("VARCHAR")),
            5 => (self.condition(scope, depth), Type::Scalar("BOOLEAN")),
            6 => {
                let condition = self.condition(scope, depth - 1);
                let (then, data_type) = self.expression(scope, depth - 1);
                let otherwise = self.value(&data_type);
                (
                    format!("CASE WHEN {condition} THEN {then} ELSE {otherwise} END"),
                    data_type,
                )
            }
            7 => {
                let (inner, _) = self.expression(scope, depth - 1);
                let target = Type::random(&mut self.rng, 1);
                (format!("TRY_CAST({inner} AS {})", target.sql()), target)
            }
            8 => {
                let (inner, data_type) = self.expression(scope, depth - 1);
                let default = self.value(&data_type);
                (format!("coalesce({inner}, {default})"), data_type)
            }
            9 => {
                let (a, type_of_a) = self.expression(scope, depth - 1);
                let (b, type_of_b) = self.expression(scope, depth - 1);
                let has_array = type_of_a.may_have_array() || type_of_b.may_have_array();
                let sql = match self.rng.u32(..5) {
                    1 if has_array && !gaps::has(Feature::ArrayInTuple) => format!("{{'x': {a}, 'y': {b}}}"),
                    0 => format!("{{'x': {a}, 'größe': {b}}}"),
                    1 => format!("row({a}, {b})"),
                    2 => format!("[{a}, {a}]"),
                    3 => format!("MAP {{'k': {a}}}"),
                    _ => format!("{{'x': {a}}}.x"),
                };
                (sql, Type::Unknown)
            }
            10 => (self.nested(scope), Type::Unknown),
            11 => (self.temporal(scope), Type::Unknown),
            12 => self.scalar_subquery(scope),
            13 => {
                let (inner, _) = self.expression(scope, depth - 1);
                let function = self.pick(&["typeof", "hash", "to_json", "md5_number_text", "is_null"]);
                let sql = match function {
                    "md5_number_text" => format!("md5(({inner})::VARCHAR)"),
                    "is_null" => format!("({inner}) IS NULL"),
                    "to_json" => format!("to_json({inner})"),
                    function => format!("{function}({inner})"),
                };
                (sql, Type::Unknown)
            }
            14 => {
                let (inner, data_type) = self.expression(scope, depth - 1);
                let other = self.value(&data_type);
                let function = self.pick(&["nullif", "greatest", "least", "ifnull"]);
                (format!("{function}({inner}, {other})"), data_type)
            }
            _ => match self.pick_object(|model| &model.macros) {
                Some(object) => {
                    let name = self.qualified_object(&object);
                    let argument = self.integer(scope, depth - 1);
                    (format!("{name}({argument})"), Type::Unknown)
                }
                None => (self.integer(scope, depth - 1), Type::Unknown),
            },
        }
    }

    /// An expression with an integer, in small steps; overflow is NULL.
    pub fn integer(&mut self, scope: &[Visible], depth: u32) -> String {
        let column = self.pick_where(scope, |column| column.data_type.is_integer());
        let base = match column {
            Some(column) if self.chance(80) => column.sql,
            _ => self.value(&Type::Scalar("INTEGER")),
        };
        if depth == 0 {
            return base;
        }
        let other = self.integer(scope, depth - 1);
        if !gaps::has(Feature::IntegerCasts) && !scope.iter().any(|column| base.contains(&column.sql)) {
            return base;
        }
        match self.rng.u32(..10) {
            0 => format!("TRY({base} + {other})"),
            1 => format!("TRY({base} - {other})"),
            2 => format!("TRY({base} * {other})"),
            3 => format!("TRY({base} % {other})"),
            4 => format!("TRY({base} // {other})"),
            5 => format!("TRY(abs({base}))"),
            6 => format!("length({})", self.text(scope, depth - 1)),
            7 => format!("TRY(-({base}))"),
            8 => format!("TRY(({base})::SMALLINT)"),
            _ => base,
        }
    }

    fn text(&mut self, scope: &[Visible], depth: u32) -> String {
        let column = self.pick_where(scope, |column| column.data_type.is("VARCHAR"));
        let base = match column {
            Some(column) if self.chance(80) => column.sql,
            _ => match self.pick_where(scope, |_| true) {
                Some(column) if self.chance(60) => format!("({})::VARCHAR", column.sql),
                _ => self.value(&Type::Scalar("VARCHAR")),
            },
        };
        if depth == 0 {
            return base;
        }
        let other = self.text(scope, depth - 1);
        match self.rng.u32(..12) {
            0 => format!("({base} || {other})"),
            1 => format!("upper({base})"),
            2 => format!("reverse({base})"),
            3 => format!("substr({base}, 2, 3)"),
            4 => format!("replace({base}, 'a', {other})"),
            5 => format!("concat_ws('|', {base}, {other})"),
            6 => format!("left(repeat({base}, 3), 50)"),
            7 => format!("regexp_replace({base}, '[aeiou]', '<\\0>', 'g')"),
            8 => format!("trim({base})"),
            9 => format!("({base})[1:2]"),
            10 => format!("format('{{}}-{{}}', {base}, {other})"),
            _ => base,
        }
    }

    /// A condition.
    pub fn condition(&mut self, scope: &[Visible], depth: u32) -> String {
        if depth > 0 && self.chance(30) {
            let (a, b) = (self.condition(scope, depth - 1), self.condition(scope, depth - 1));
            return match self.rng.u32(..3) {
                0 => format!("({a} AND {b})"),
                1 => format!("({a} OR {b})"),
                _ => format!("NOT ({a})"),
            };
        }
        let Some(column) = self.pick_where(scope, |_| true) else {
            return self.pick(&["true", "1 = 1", "NULL", "false"]).to_owned();
        };
        let (sql, data_type) = (column.sql, column.data_type);
        match self.rng.u32(..14) {
            0..4 => {
                let operator = self.pick(COMPARISONS);
                let value = self.value(&data_type);
                format!("{sql} {operator} {value}")
            }
            4 => format!("{sql} IS NOT NULL"),
            5 => format!("{sql} IS NULL"),
            6 => {
                let values: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.value(&data_type)).collect();
                let not = self.pick(&["", "NOT "]);
                format!("{sql} {not}IN ({})", values.join(", "))
            }
            7 => {
                let (low, high) = (self.value(&data_type), self.value(&data_type));
                format!("{sql} BETWEEN {low} AND {high}")
            }
            8 => {
                let text = self.text(scope, depth.min(1));
                let operator = self.pick(&["LIKE", "ILIKE", "NOT LIKE", "SIMILAR TO", "GLOB", "^@"]);
                let pattern = self.pick(&["%a%", "a_c", "%", "", "gr%e", "_"]);
                format!("{text} {operator} '{pattern}'")
            }
            9 => {
                let operator = self.pick(COMPARISONS);
                let (a, b) = (self.integer(scope, 1), self.integer(scope, 1));
                format!("{a} {operator} {b}")
            }
            10 | 11 if depth > 0 => {
                let same = data_type.clone();
                let Some((table, inner)) = self.pick_column(move |inner| *inner == same) else {
                    return format!("{sql} IS NOT NULL");
                };
                let table = self.qualified(&table);
                match self.rng.u32(..4) {
                    0 => format!("EXISTS (FROM {table} AS inn WHERE inn.{} = {sql})", inner.name),
                    1 => format!(
                        "NOT EXISTS (SELECT 1 FROM {table} AS inn WHERE inn.{} = {sql})",
                        inner.name
                    ),
                    2 => format!("{sql} IN (SELECT {} FROM {table})", inner.name),
                    _ => format!("{sql} >= ANY (SELECT {} FROM {table})", inner.name),
                }
            }
            _ => {
                let value = data_type.value(&mut self.rng);
                format!("{sql} = {value}")
            }
        }
    }

    fn nested(&mut self, scope: &[Visible]) -> String {
        let column = self.pick_where(scope, |column| {
            matches!(
                column.data_type,
                Type::List(_) | Type::Array(..) | Type::Map(..) | Type::Struct(_) | Type::Union(_) | Type::Enum(_)
            )
        });
        let Some(Visible { sql, data_type }) = column else {
            return "[1, NULL, 3]".to_owned();
        };
        match data_type {
            Type::List(_) => match self.rng.u32(..7) {
                0 => format!("{sql}[1]"),
                1 => format!("len({sql})"),
                2 => format!("list_sort({sql})"),
                3 => format!("list_transform({sql}, lambda e: e IS NULL)"),
                4 => format!("[e FOR e IN {sql} IF e IS NOT NULL]"),
                5 => format!("{sql}[2:3]"),
                _ => format!("{sql} || {sql}"),
            },
            Type::Array(..) => format!("{sql}[1]"),
            Type::Map(..) => match self.rng.u32(..4) {
                0 => format!("map_keys({sql})"),
                1 => format!("map_entries({sql})"),
                2 => format!("cardinality({sql})"),
                _ => format!("map_values({sql})[1]"),
            },
            Type::Struct(fields) => match self.rng.u32(..3) {
                0 => format!("({sql}).\"{}\"", fields[0].0),
                1 => format!("struct_extract({sql}, '{}')", fields[0].0),
                _ => format!("({sql})['{}']", fields[0].0),
            },
            Type::Union(tags) => match self.rng.u32(..2) {
                0 => format!("union_tag({sql})"),
                _ => format!("union_extract({sql}, '{}')", tags[0].0),
            },
            _ => format!("enum_code({sql})"),
        }
    }

    fn temporal(&mut self, scope: &[Visible]) -> String {
        let column = self.pick_where(scope, |column| {
            column.data_type.is("DATE") || column.data_type.is("TIMESTAMP")
        });
        let base = column.map_or_else(|| "DATE '2020-02-29'".to_owned(), |column| column.sql);
        match self.rng.u32(..6) {
            0 => format!("TRY({base} + INTERVAL '1 month')"),
            1 => format!("TRY(extract('year' FROM {base}))"),
            2 => format!("TRY(date_trunc('month', {base}))"),
            3 => format!("TRY(strftime({base}, '%d.%m.%Y'))"),
            4 => format!("TRY(dayname({base}))"),
            _ => format!("isfinite({base})"),
        }
    }

    fn scalar_subquery(&mut self, scope: &[Visible]) -> (String, Type) {
        let outer = self.pick_where(scope, |_| true);
        let found = match &outer {
            Some(outer)
                if self.chance(60) && (gaps::has(Feature::CorrelatedArray) || !outer.data_type.may_have_array()) =>
            {
                let same = outer.data_type.clone();
                self.pick_column(move |inner| *inner == same)
                    .map(|(table, column)| (table, column, true))
            }
            _ => None,
        };
        let found = found.or_else(|| self.pick_column(|_| true).map(|(table, column)| (table, column, false)));
        let Some((table, column, is_correlated)) = found else {
            return ("(SELECT 42)".to_owned(), Type::Scalar("INTEGER"));
        };
        let name = self.qualified(&table);
        let filter = match outer {
            Some(outer) if is_correlated => format!(" WHERE inn.{} = {}", column.name, outer.sql),
            _ => String::new(),
        };
        let (what, data_type) = match self.rng.u32(..3) {
            0 => ("count(*)".to_owned(), Type::Scalar("BIGINT")),
            1 => (format!("count(DISTINCT inn.{})", column.name), Type::Scalar("BIGINT")),
            _ => (format!("max(inn.{})", column.name), column.data_type),
        };
        (format!("(SELECT {what} FROM {name} AS inn{filter})"), data_type)
    }

    /// An aggregate over `scope` that yields the same in any order of its rows.
    fn aggregate(&mut self, scope: &[Visible]) -> (String, Type) {
        let (any, any_type) = self.expression(scope, 1);
        let integer = match self.pick_where(scope, |column| column.data_type.is_exact_number()) {
            Some(column) if self.chance(70) => column.sql,
            _ => self.integer(scope, 1),
        };
        let sql = match self.rng.u32(..13) {
            0 | 1 => "count(*)".to_owned(),
            2 => format!("count({any})"),
            3 => format!("count(DISTINCT {any})"),
            4 => return (format!("min({any})"), any_type),
            5 => return (format!("max({any})"), any_type),
            6 => format!("sum(TRY(({integer})::INTEGER))"),
            7 => format!("sum(TRY(({integer})::DECIMAL(18,2)))"),
            8 => {
                let text = self.text(scope, 1);
                format!("string_agg({text}, '|' ORDER BY {text})")
            }
            9 => format!("list({any} ORDER BY {any})"),
            10 => format!("bool_or({any} IS NULL)"),
            11 => format!("avg(TRY(({integer})::INTEGER))"),
            _ => format!("bit_xor(hash({any}))"),
        };
        if self.chance(15) && !sql.contains("ORDER BY") {
            let condition = self.condition(scope, 0);
            return (format!("{sql} FILTER (WHERE {condition})"), Type::Unknown);
        }
        (sql, Type::Unknown)
    }

    fn window(&mut self, scope: &[Visible]) -> (String, Type) {
        let all = columns_of(scope);
        let column = self.pick_where(scope, |_| true).expect("a scope");
        let partition = match self.rng.bool() {
            true => format!("PARTITION BY {} ", column.sql),
            false => String::new(),
        };
        let frame = self.pick(&[
            "",
            " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        ]);
        let over = format!("OVER ({partition}ORDER BY {all}{frame})");
        let (any, any_type) = self.expression(scope, 1);
        match self.rng.u32(..7) {
            0 => (
                format!("row_number() OVER ({partition}ORDER BY {all})"),
                Type::Scalar("BIGINT"),
            ),
            1 => (
                format!("rank() OVER ({partition}ORDER BY {})", column.sql),
                Type::Scalar("BIGINT"),
            ),
            2 => (
                format!("lag({0}) OVER ({partition}ORDER BY {all})", column.sql),
                column.data_type,
            ),
            3 => (format!("count({any}) {over}"), Type::Scalar("BIGINT")),
            4 => (format!("max({any}) {over}"), any_type),
            5 => (format!("first_value({0}) {over}", column.sql), column.data_type),
            _ => (
                format!("sum(TRY(({})::INTEGER)) {over}", self.integer(scope, 1)),
                Type::Unknown,
            ),
        }
    }

    fn visible(table: &Table, alias: &str) -> Vec<Visible> {
        let columns = table.columns.iter().map(|column| Visible {
            sql: format!("{alias}.{}", column.name),
            data_type: column.data_type.clone(),
        });
        columns.collect()
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("x{}", self.aliases)
    }

    fn source(&mut self, depth: u32) -> From {
        let alias = self.alias();
        let one = |name: &str, data_type: Type| {
            vec![Visible {
                sql: format!("{alias}.{name}"),
                data_type,
            }]
        };
        match self.rng.u32(..20) {
            0 => From {
                sql: format!("range({}) {alias}(r)", self.rng.u32(..6)),
                scope: one("r", Type::Scalar("BIGINT")),
                is_local: false,
            },
            1 => {
                let data_type = Type::random(&mut self.rng, 1);
                let rows: Vec<_> = (0..self.rng.usize(1..4))
                    .map(|_| format!("({})", data_type.value(&mut self.rng)))
                    .collect();
                From {
                    sql: format!("(VALUES {}) {alias}(v)", rows.join(", ")),
                    scope: one("v", data_type),
                    is_local: false,
                }
            }
            2 => From {
                sql: format!("unnest([3, NULL, 1]) {alias}(u)"),
                scope: one("u", Type::Scalar("INTEGER")),
                is_local: false,
            },
            3..6 if depth > 0 => {
                let query = self.query(depth - 1);
                let scope = query.columns.iter().map(|column| Visible {
                    sql: format!("{alias}.{}", column.name),
                    data_type: column.data_type.clone(),
                });
                From {
                    sql: format!("({}) {alias}", query.sql),
                    scope: scope.collect(),
                    is_local: query.is_local,
                }
            }
            6 => match self.pick_object(|model| &model.table_macros) {
                Some(object) => From {
                    sql: format!("{}({}) {alias}", self.qualified_object(&object), self.rng.u32(..5)),
                    scope: one("n", Type::Scalar("BIGINT")),
                    is_local: false,
                },
                None => self.source(depth.saturating_sub(1)),
            },
            _ => match self.pick_table(|table| !table.is_big) {
                Some(table) => From {
                    sql: format!("{} AS {alias}", self.qualified(&table)),
                    scope: Self::visible(&table, &alias),
                    is_local: !table.is_remote(),
                },
                None => From {
                    sql: format!("range(3) {alias}(r)"),
                    scope: one("r", Type::Scalar("BIGINT")),
                    is_local: false,
                },
            },
        }
    }

    fn from(&mut self, depth: u32) -> From {
        let mut from = self.source(depth);
        for _ in 0..self.rng.usize(..3) {
            if self.chance(50) {
                continue;
            }
            let right = self.source(depth.saturating_sub(1));
            from.is_local |= right.is_local;
            let mut both = from.scope.clone();
            both.extend(right.scope.iter().cloned());
            let pair = from.scope.iter().find_map(|left| {
                let same = right.scope.iter().find(|right| right.data_type == left.data_type)?;
                Some(format!("{} = {}", left.sql, same.sql))
            });
            let on = match pair {
                Some(pair) if self.chance(80) => pair,
                _ => self.condition(&both, 1),
            };
            let (left, other) = (from.sql, right.sql);
            (from.sql, from.scope) = match self.rng.u32(..9) {
                0 | 1 => (format!("{left} JOIN {other} ON {on}"), both),
                2 => (format!("{left} LEFT JOIN {other} ON {on}"), both),
                3 => (format!("{left} RIGHT JOIN {other} ON {on}"), both),
                4 => (format!("{left} FULL JOIN {other} ON {on}"), both),
                5 => (format!("{left} SEMI JOIN {other} ON {on}"), from.scope),
                6 => (format!("{left} ANTI JOIN {other} ON {on}"), from.scope),
                7 => {
                    let alias = self.alias();
                    let (inner, data_type) = self.expression(&from.scope, 1);
                    let mut scope = from.scope;
                    scope.push(Visible {
                        sql: format!("{alias}.l"),
                        data_type,
                    });
                    (format!("{left}, LATERAL (SELECT {inner} AS l) {alias}"), scope)
                }
                _ => (format!("{left} CROSS JOIN {other}"), both),
            };
        }
        from
    }

    /// Columns of a SELECT: expressions with names.
    fn items(&mut self, expressions: Vec<(String, Type)>) -> (String, Vec<Column>) {
        let mut columns = Vec::new();
        let mut items = Vec::new();
        for (index, (sql, data_type)) in expressions.into_iter().enumerate() {
            let name = match index {
                1 => "\"größe\"".to_owned(),
                2 => "\"order\"".to_owned(),
                index => format!("c{index}"),
            };
            items.push(format!("{sql} AS {name}"));
            columns.push(Column {
                name,
                data_type,
                is_generated: false,
            });
        }
        (items.join(", "), columns)
    }

    /// A query with columns that have names of their own.
    pub fn query(&mut self, depth: u32) -> Query {
        let query = match self.rng.u32(..20) {
            0 | 1 if depth > 0 => self.set_operation(depth - 1),
            2 if depth > 0 => self.common_table(depth - 1),
            3 => self.recursive(),
            4 if depth > 0 => self.pivot(),
            5..9 => self.grouped(depth),
            _ => self.select(depth),
        };
        self.order(query)
    }

    fn order(&mut self, mut query: Query) -> Query {
        if query.is_ordered || !self.chance(30) {
            return query;
        }
        let direction = self.pick(&["", " DESC", " NULLS FIRST", " ASC NULLS LAST"]);
        query.sql = match self.rng.bool() {
            true => format!("SELECT * FROM ({}) ORDER BY ALL{direction}", query.sql),
            false => format!("{} ORDER BY ALL{direction}", query.sql),
        };
        if self.chance(40) {
            query.sql.push_str(&format!(" LIMIT {}", self.rng.u32(..8)));
            if self.chance(30) {
                query.sql.push_str(&format!(" OFFSET {}", self.rng.u32(..4)));
            }
        }
        query.is_ordered = true;
        query
    }

    fn select(&mut self, depth: u32) -> Query {
        let from = self.from(depth);
        let count = self.rng.usize(1..5);
        let mut expressions: Vec<_> = (0..count).map(|_| self.expression(&from.scope, 2)).collect();
        if self.chance(12) && !from.scope.is_empty() {
            expressions.push(self.window(&from.scope));
        }
        let (items, columns) = self.items(expressions);
        let distinct = if self.chance(10) { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{items} FROM {}", from.sql);
        if self.chance(60) {
            sql.push_str(&format!(" WHERE {}", self.condition(&from.scope, 2)));
        }
        if self.chance(6) && !from.scope.is_empty() {
            let (window, _) = self.window(&from.scope);
            sql.push_str(&format!(" QUALIFY {window} IS NOT NULL"));
        }
        Query {
            sql,
            columns,
            is_ordered: false,
            is_local: from.is_local,
        }
    }

    fn grouped(&mut self, depth: u32) -> Query {
        let from = self.from(depth);
        let mut keys: Vec<_> = (0..self.rng.usize(..3))
            .map(|_| self.expression(&from.scope, 1))
            .collect();
        if !gaps::has(Feature::ConstantGroups) {
            keys.retain(|(sql, _)| from.scope.iter().any(|column| *sql == column.sql));
        }
        let mut expressions = keys.clone();
        for _ in 0..self.rng.usize(1..4) {
            expressions.push(self.aggregate(&from.scope));
        }
        let (items, columns) = self.items(expressions);
        let mut sql = format!("SELECT {items} FROM {}", from.sql);
        if self.chance(40) {
            sql.push_str(&format!(" WHERE {}", self.condition(&from.scope, 1)));
        }
        if !keys.is_empty() {
            let numbers: Vec<_> = (1..=keys.len()).map(|number| number.to_string()).collect();
            let numbers = numbers.join(", ");
            let texts: Vec<_> = keys.iter().map(|(sql, _)| sql.as_str()).collect();
            let texts = texts.join(", ");
            sql.push_str(&match self.rng.u32(..6) {
                0 => " GROUP BY ALL".to_owned(),
                1 => format!(" GROUP BY ROLLUP ({texts})"),
                2 => format!(" GROUP BY CUBE ({texts})"),
                3 => format!(" GROUP BY GROUPING SETS (({texts}), ())"),
                _ => format!(" GROUP BY {numbers}"),
            });
            if self.chance(25) {
                sql.push_str(" HAVING count(*) >= 1");
            }
        }
        Query {
            sql,
            columns,
            is_ordered: false,
            is_local: from.is_local,
        }
    }

    fn set_operation(&mut self, depth: u32) -> Query {
        let left = self.from(depth);
        let right = self.from(depth);
        let mut pairs = Vec::new();
        for _ in 0..self.rng.usize(1..3) {
            let (a, data_type) = self.expression(&left.scope, 1);
            let same = self.pick_where(&right.scope, |column| column.data_type == data_type);
            let b = same.map_or_else(|| data_type.value(&mut self.rng), |column| column.sql);
            pairs.push((a, b, data_type));
        }
        let (first, columns) = self.items(pairs.iter().map(|(a, _, t)| (a.clone(), t.clone())).collect());
        let (second, _) = self.items(pairs.iter().map(|(_, b, t)| (b.clone(), t.clone())).collect());
        let operator = self.pick(&[
            "UNION",
            "UNION ALL",
            "INTERSECT",
            "EXCEPT",
            "EXCEPT ALL",
            "INTERSECT ALL",
            "UNION ALL BY NAME",
        ]);
        Query {
            sql: format!(
                "SELECT {first} FROM {} {operator} SELECT {second} FROM {}",
                left.sql, right.sql
            ),
            columns,
            is_ordered: false,
            is_local: left.is_local || right.is_local,
        }
    }

    fn common_table(&mut self, depth: u32) -> Query {
        let inner = self.query(depth);
        let scope: Vec<_> = inner
            .columns
            .iter()
            .map(|column| Visible {
                sql: format!("w.{}", column.name),
                data_type: column.data_type.clone(),
            })
            .collect();
        let (items, columns) = {
            let expressions = (0..2).map(|_| self.expression(&scope, 1)).collect();
            self.items(expressions)
        };
        let condition = self.condition(&scope, 1);
        let materialized = self.pick(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
        Query {
            sql: format!(
                "WITH w AS {materialized}({}) SELECT {items} FROM w WHERE {condition}",
                inner.sql
            ),
            columns,
            is_ordered: false,
            is_local: inner.is_local,
        }
    }

    fn recursive(&mut self) -> Query {
        let (start, place) = match self.pick_table(|table| !table.is_big) {
            Some(table) => (format!("SELECT count(*) FROM {}", self.qualified(&table)), table.place),
            None => ("SELECT 1::BIGINT".to_owned(), Place::Dh),
        };
        Query {
            sql: format!(
                "WITH RECURSIVE w(c0) AS ({start} UNION ALL SELECT c0 + 1 FROM w WHERE c0 < 20) SELECT c0 FROM w"
            ),
            columns: vec![Column {
                name: "c0".to_owned(),
                data_type: Type::Scalar("BIGINT"),
                is_generated: false,
            }],
            is_ordered: false,
            is_local: place != Place::Dh,
        }
    }

    fn pivot(&mut self) -> Query {
        let found = self.pick_column(Type::is_integer);
        let (name, column, is_local) = match found {
            Some((table, column)) => (self.qualified(&table), column.name, !table.is_remote()),
            None => ("range(3)".to_owned(), "range".to_owned(), false),
        };
        Query {
            sql: format!(
                "SELECT c0, c1 FROM (FROM {name} SELECT {column} AS k) \
                 PIVOT (count(*) FOR k IN (0 AS c0, 1 AS c1))"
            ),
            columns: ["c0", "c1"]
                .map(|name| Column {
                    name: name.to_owned(),
                    data_type: Type::Unknown,
                    is_generated: false,
                })
                .to_vec(),
            is_ordered: false,
            is_local,
        }
    }

    /// A query whose columns need no names: expressions as they are, stars.
    pub fn unnamed_query(&mut self) -> Query {
        let Some(table) = self.pick_table(|table| !table.is_big) else {
            return self.query(1);
        };
        let name = self.qualified(&table);
        let scope = Self::visible(&table, "t");
        let columns: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let first = columns.first().copied().unwrap_or("*");
        let one = self.pick(&columns).to_owned();
        let sql = match self.rng.u32(..14) {
            0 => format!("FROM {name}"),
            1 => format!("SELECT * FROM {name}"),
            2 => format!("TABLE {name}"),
            3 => format!("SELECT * EXCLUDE ({first}), {first} FROM {name}"),
            4 => format!("SELECT * REPLACE (42 AS {first}) FROM {name}"),
            5 => format!("SELECT * RENAME ({first} AS renamed) FROM {name}"),
            6 => format!("SELECT COLUMNS(*)::VARCHAR FROM {name}"),
            7 => describe(&name, table.is_view),
            8 => format!("SELECT count(*), count({one}), min({one}) FROM {name}"),
            9 => describe(&format!("(SELECT {one}, {one} IS NULL FROM {name})"), table.is_view),
            10 => format!("UNPIVOT (SELECT {one} FROM {name}) ON {one}"),
            11 => {
                format!("SELECT a.{one}, b.{one} FROM {name} a, {name} b")
            }
            12 => format!("FROM {name} SELECT {one} ORDER BY ALL LIMIT 3"),
            _ => {
                let mut items: Vec<_> = (0..self.rng.usize(1..4))
                    .map(|_| self.expression(&scope, 2).0)
                    .collect();
                items.sort();
                items.dedup();
                format!("SELECT {} FROM {name} AS t", items.join(", "))
            }
        };
        Query {
            is_ordered: sql.contains("ORDER BY ALL") || sql.contains("DESCRIBE"),
            sql,
            columns: Vec::new(),
            is_local: !table.is_remote(),
        }
    }
}
