//! DuckDB settings that a client wants for its session, whatever connection a statement gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use duckherder_proto::{ExceptionType, RemoteError};

use crate::catalog::{identifier, literal};
use crate::duckdb::Connection;
use crate::herd::{Herd, HerdSession, Planning};

/// Name to value. A variable is named `variable:` and its name, and its value is SQL.
pub type Settings = BTreeMap<String, String>;

/// What the names of variables begin with.
const VARIABLE: &str = "variable:";

/// Settings of one session.
const SETTINGS_MAX: usize = 64;

/// Bytes of a name, of which DuckDB's longest has half as many, and of a value.
const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Whether a client may ask for these.
///
/// # Errors
/// There are too many, or something is too long or no name.
pub fn check(settings: &Settings) -> Result<(), RemoteError> {
    let refuse = |message: String| Err(RemoteError::new(ExceptionType::InvalidInput, message));
    if settings.len() > SETTINGS_MAX {
        return refuse(format!(
            "a session has at most {SETTINGS_MAX} settings, not {}",
            settings.len()
        ));
    }
    for (name, value) in settings {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = name.starts_with(VARIABLE) || name.bytes().all(is_word);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_name || name.contains('\0') {
            return refuse(format!("{name:.NAME_BYTES_MAX$?} is no name of a setting"));
        }
        if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
            return refuse(format!("the value of setting {name} is too long, or no text"));
        }
    }
    Ok(())
}

/// A connection, and which settings it has been given.
pub struct SettledConnection {
    pub connection: Connection,
    /// What it has of the herd.
    pub herd: Arc<HerdSession>,
    applied: Settings,
}

impl SettledConnection {
    /// # Errors
    /// DuckDB's.
    pub fn new(mut connection: Connection, herd: &Arc<Herd>) -> Result<Self, RemoteError> {
        let herd = HerdSession::new(Arc::clone(herd));
        connection.bind_herd(Arc::new(Planning::new(Arc::clone(&herd))))?;
        Ok(Self {
            connection,
            herd,
            applied: Settings::new(),
        })
    }

    /// Brings the connection's settings to what is wanted, and leaves alone what only statements have SET.
    ///
    /// # Errors
    /// DuckDB's, for a value that it does not accept.
    pub fn apply(&mut self, wanted: &Settings) -> Result<(), RemoteError> {
        if self.applied == *wanted {
            return Ok(());
        }
        self.herd.set_settings(wanted.clone());
        let gone: Vec<_> = self
            .applied
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let sql = match name.strip_prefix(VARIABLE) {
                Some(variable) => format!("RESET VARIABLE {}", identifier(variable)),
                None => format!("RESET SESSION {}", identifier(&name)),
            };
            self.connection.execute(&sql)?;
            self.applied.remove(&name);
        }
        for (name, value) in wanted {
            if self.applied.get(name) == Some(value) {
                continue;
            }
            match name.strip_prefix(VARIABLE) {
                Some(variable) => self.set_variable(variable, value)?,
                None => {
                    // Asking for what DuckDB does not know makes it look for an extension, on the network too.
                    if !self.connection.has_setting(name) {
                        continue;
                    }
                    let sql = format!("SET SESSION {} = {}", identifier(name), literal(value));
                    self.connection.execute(&sql)?;
                }
            }
            self.applied.insert(name.clone(), value.clone());
        }
        Ok(())
    }

    fn set_variable(&mut self, name: &str, value_sql: &str) -> Result<(), RemoteError> {
        let sql = format!("SET VARIABLE {} = {value_sql}", identifier(name));
        match self.connection.parse(&sql)?.as_slice() {
            [_] => self.connection.execute(&sql).map(|_| ()),
            _ => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!("the value of variable {name} is not one SQL expression"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};
    use crate::herd::Registry;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn names_and_counts_are_checked() {
        check(&settings(&[("TimeZone", "x'y"), ("default_null_order", "")])).unwrap();
        for hostile in ["", "a b", "a=1;", "\"", "ä", &"a".repeat(NAME_BYTES_MAX + 1)] {
            let error = check(&settings(&[(hostile, "1")])).unwrap_err();
            assert_eq!(error.kind, ExceptionType::InvalidInput, "{hostile}");
        }
        assert!(check(&settings(&[("a", "\0")])).is_err());
        assert!(check(&settings(&[("a", &"x".repeat(VALUE_BYTES_MAX + 1))])).is_err());
        let many = (0..=SETTINGS_MAX)
            .map(|index| (format!("s{index}"), String::new()))
            .collect();
        assert!(check(&many).is_err());
    }

    fn connect() -> SettledConnection {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let registry = Registry::open(database.clone(), false, Arc::default()).unwrap();
        let herd = Herd::new(Arc::new(registry), std::env::temp_dir());
        let mut connection = database.connect().unwrap();
        connection.install_herd().unwrap();
        SettledConnection::new(connection, &herd).unwrap()
    }

    fn division(connection: &mut SettledConnection) -> bool {
        // An error unless the setting is as expected.
        let sql = "SELECT CASE WHEN current_setting('integer_division') THEN 1 ELSE error('no') END";
        connection.connection.execute(sql).is_ok()
    }

    #[test]
    fn settings_come_and_go() {
        let mut connection = connect();
        connection.apply(&settings(&[("integer_division", "true")])).unwrap();
        assert!(division(&mut connection));
        connection.apply(&settings(&[])).unwrap();
        assert!(!division(&mut connection));
    }

    #[test]
    fn variables_come_and_go() {
        let mut connection = connect();
        let is = |connection: &mut SettledConnection, value: &str| {
            let sql = format!(
                "SELECT CASE WHEN getvariable('a \"b') IS NOT DISTINCT FROM {value} THEN 1 ELSE error('no') END"
            );
            connection.connection.execute(&sql).is_ok()
        };
        connection.apply(&settings(&[("variable:a \"b", "[1, 2]")])).unwrap();
        assert!(is(&mut connection, "[1, 2]"));
        for hostile in ["1; SET VARIABLE x = 2", "", "("] {
            connection.apply(&settings(&[("variable:a \"b", hostile)])).unwrap_err();
        }
        connection.apply(&settings(&[])).unwrap();
        assert!(is(&mut connection, "NULL"));
    }

    #[test]
    fn what_a_statement_has_set_stays() {
        let mut connection = connect();
        connection
            .connection
            .execute("SET SESSION integer_division = true")
            .unwrap();
        connection
            .apply(&settings(&[("default_null_order", "NULLS_FIRST")]))
            .unwrap();
        assert!(division(&mut connection));
    }

    #[test]
    fn unknown_settings_are_left_out_and_bad_values_are_not() {
        let mut connection = connect();
        connection.apply(&settings(&[("no_such_setting", "1")])).unwrap();
        let wanted = settings(&[("default_null_order", "sideways"), ("integer_division", "true")]);
        for _ in 0..2 {
            connection.apply(&wanted).unwrap_err();
        }
        connection.apply(&settings(&[("integer_division", "true")])).unwrap();
        assert!(division(&mut connection));
    }
}
