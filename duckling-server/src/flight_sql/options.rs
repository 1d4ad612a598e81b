//! Session options: where unqualified names are looked for, what values look like, DuckDB settings on a list.

use std::collections::HashMap;
use std::sync::Arc;

use duckherder_proto::RemoteError;

use super::messages::{
    GetSessionOptionsResult, OptionValue, SessionOptionValue, SetSessionOptionError, SetSessionOptionErrorValue,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use super::state::ENDPOINTS_MAX;
use crate::catalog::{current_place, identifier};
use crate::duckdb::Connection;
use crate::running::blocking;
use crate::session::{Place, Session};
use crate::settings::{self, Settings};

const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";

/// Results with exact types instead of plain Arrow.
pub const LOSSLESS: &str = "duckherder.lossless";

/// Streams that a large result without an order comes in, at most.
pub const ENDPOINTS: &str = "duckherder.endpoints";

/// DuckDB settings that clients may set for their session. What is not on the list concerns the server, or files.
const SETTINGS: &[&str] = &[
    "Calendar",
    "TimeZone",
    "default_collation",
    "default_null_order",
    "default_order",
    "ieee_floating_point_ops",
    "integer_division",
    "null_order",
    "ordered_aggregate_threshold",
    "preserve_identifier_case",
    "scalar_subquery_error_on_multiple_rows",
];

/// Options in one request.
const OPTIONS_MAX: usize = 64;

/// Sets options; the answer says which of them were not.
///
/// # Errors
/// There are too many, or the session's connection is not to be had.
pub async fn set(
    session: &Arc<Session>,
    request: SetSessionOptionsRequest,
) -> Result<SetSessionOptionsResult, RemoteError> {
    if request.session_options.len() > OPTIONS_MAX {
        return Err(RemoteError::new(
            duckherder_proto::ExceptionType::InvalidInput,
            format!("at most {OPTIONS_MAX} options can be set at once"),
        ));
    }
    let mut errors = HashMap::new();
    let mut options: Vec<_> = request.session_options.into_iter().collect();
    // The schema is looked for in the catalog.
    options.sort_by(|(first, _), (second, _)| first.cmp(second));
    for (name, value) in options {
        if let Err(error) = set_one(session, &name, value.value).await {
            errors.insert(name, SetSessionOptionError { value: error.into() });
        }
    }
    Ok(SetSessionOptionsResult { errors })
}

async fn set_one(
    session: &Arc<Session>,
    name: &str,
    value: Option<OptionValue>,
) -> Result<(), SetSessionOptionErrorValue> {
    use SetSessionOptionErrorValue::{InvalidName, InvalidValue};
    let text = || match &value {
        None => Ok(None),
        Some(OptionValue::String(text)) if text.is_empty() => Ok(None),
        Some(OptionValue::String(text)) => Ok(Some(text.clone())),
        _ => Err(InvalidValue),
    };
    let (catalog, _) = session.flight_sql.place();
    match name {
        CATALOG => set_place(session, text()?, None).await,
        SCHEMA => set_place(session, catalog, text()?).await,
        LOSSLESS => {
            let lossless = match &value {
                None => false,
                Some(OptionValue::Bool(lossless)) => *lossless,
                Some(OptionValue::String(text)) => text.parse().map_err(|_| InvalidValue)?,
                _ => return Err(InvalidValue),
            };
            session.flight_sql.set_lossless(lossless);
            Ok(())
        }
        ENDPOINTS => {
            let endpoints = match &value {
                None => None,
                Some(OptionValue::Int64(number)) => Some(u8::try_from(*number).map_err(|_| InvalidValue)?),
                Some(OptionValue::String(text)) => Some(text.parse().map_err(|_| InvalidValue)?),
                _ => return Err(InvalidValue),
            };
            if endpoints.is_some_and(|endpoints| !(1..=ENDPOINTS_MAX).contains(&endpoints)) {
                return Err(InvalidValue);
            }
            session.flight_sql.set_endpoints(endpoints);
            Ok(())
        }
        _ => {
            let name = SETTINGS
                .iter()
                .find(|known| known.eq_ignore_ascii_case(name))
                .ok_or(InvalidName)?;
            let text = match value {
                None => None,
                Some(OptionValue::String(text)) => Some(text),
                Some(OptionValue::Bool(flag)) => Some(flag.to_string()),
                Some(OptionValue::Int64(number)) => Some(number.to_string()),
                Some(OptionValue::Double(number)) => Some(number.to_string()),
                Some(OptionValue::StringList(_)) => return Err(InvalidValue),
            };
            change(session, |settings| {
                settings.remove(*name);
                settings.extend(text.map(|text| ((*name).to_owned(), text)));
            })
            .await?;
            session.flight_sql.set_has_options();
            Ok(())
        }
    }
}

async fn set_place(
    session: &Arc<Session>,
    catalog: Option<String>,
    schema: Option<String>,
) -> Result<(), SetSessionOptionErrorValue> {
    let quoted = match (&catalog, &schema) {
        (None, None) => None,
        (None, Some(schema)) => Some(identifier(schema)),
        (Some(catalog), None) => Some(format!("{}.{}", identifier(catalog), identifier("main"))),
        (Some(catalog), Some(schema)) => Some(format!("{}.{}", identifier(catalog), identifier(schema))),
    };
    change(session, |settings| {
        settings.remove(SCHEMA);
        settings.extend(quoted.map(|quoted| (SCHEMA.to_owned(), quoted)));
    })
    .await?;
    session.flight_sql.set_place(catalog, schema);
    Ok(())
}

/// Changes the session's settings, unless DuckDB refuses them.
async fn change(session: &Arc<Session>, change: impl FnOnce(&mut Settings)) -> Result<(), SetSessionOptionErrorValue> {
    let before = session.settings();
    let mut after = before.clone();
    change(&mut after);
    settings::check(&after).map_err(|_| SetSessionOptionErrorValue::InvalidValue)?;
    let mut lease = session
        .lease("SET", Place::Session)
        .await
        .map_err(|_| SetSessionOptionErrorValue::Error)?;
    session.change_settings(after);
    let applied = blocking(move || lease.apply_settings()).await;
    applied.map_err(|_| {
        session.change_settings(before);
        SetSessionOptionErrorValue::InvalidValue
    })
}

/// All options of a session.
///
/// # Errors
/// The session's connection is not to be had.
pub async fn get(session: &Arc<Session>) -> Result<GetSessionOptionsResult, RemoteError> {
    let mut options = HashMap::new();
    let mut tell = |name: &str, value| {
        options.insert(name.to_owned(), SessionOptionValue { value: Some(value) });
    };
    for (name, value) in session.settings() {
        if name != SCHEMA {
            tell(&name, OptionValue::String(value));
        }
    }
    let mut lease = session.lease_catalog().await?;
    let (catalog, schema) = blocking(move || {
        lease.apply_settings()?;
        let connection: &mut Connection = lease.connection()?;
        current_place(connection)
    })
    .await?;
    tell(CATALOG, OptionValue::String(catalog));
    tell(SCHEMA, OptionValue::String(schema));
    tell(LOSSLESS, OptionValue::Bool(session.flight_sql.is_lossless()));
    if let Some(endpoints) = session.flight_sql.endpoints() {
        tell(ENDPOINTS, OptionValue::Int64(endpoints.into()));
    }
    Ok(GetSessionOptionsResult {
        session_options: options,
    })
}
