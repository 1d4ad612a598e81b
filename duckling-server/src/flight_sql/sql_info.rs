//! What the server can do, for tools that ask before they try.

use std::collections::HashMap;

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedTransaction,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

/// Above all numbers of information that Flight SQL defines.
pub const INFO_MAX: u32 = 1000;

/// Version of the Arrow format and libraries.
const ARROW_VERSION: &str = "60.1.0";

/// DuckDB's reserved words that SQL:2003 does not reserve.
const KEYWORDS: &[&str] = &[
    "ANALYSE",
    "ANALYZE",
    "ASC_P",
    "DEFERRABLE",
    "DESC_P",
    "DESCRIBE",
    "INITIALLY",
    "LAMBDA",
    "LIMIT",
    "OFFSET",
    "PIVOT",
    "PIVOT_LONGER",
    "PIVOT_WIDER",
    "PLACING",
    "QUALIFY",
    "RETURNING",
    "SHOW",
    "SUMMARIZE",
    "UNPIVOT",
    "VARIADIC",
];

const NUMERIC_FUNCTIONS: &[&str] = &[
    "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEILING", "COS", "COT", "DEGREES", "EXP", "FLOOR", "LN", "LOG", "LOG10",
    "MOD", "PI", "POWER", "RADIANS", "RANDOM", "ROUND", "SIGN", "SIN", "SQRT", "TAN", "TRUNC",
];

const STRING_FUNCTIONS: &[&str] = &[
    "ASCII",
    "CHR",
    "CONCAT",
    "LCASE",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "LTRIM",
    "POSITION",
    "REPEAT",
    "REPLACE",
    "RIGHT",
    "RPAD",
    "RTRIM",
    "SUBSTRING",
    "TRIM",
    "UCASE",
    "UPPER",
];

const SYSTEM_FUNCTIONS: &[&str] = &[
    "COALESCE",
    "CURRENT_DATABASE",
    "CURRENT_SCHEMA",
    "CURRENT_USER",
    "IFNULL",
    "VERSION",
];

const DATETIME_FUNCTIONS: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "DATE_DIFF",
    "DATE_PART",
    "DATE_TRUNC",
    "DAYNAME",
    "DAYOFMONTH",
    "DAYOFWEEK",
    "DAYOFYEAR",
    "EXTRACT",
    "HOUR",
    "MINUTE",
    "MONTH",
    "MONTHNAME",
    "NOW",
    "QUARTER",
    "SECOND",
    "WEEK",
    "YEAR",
];

/// All of it. Which of the union's types a value has is what JDBC's and ODBC's drivers look for: they cast without looking.
pub fn build() -> Result<SqlInfoData, FlightError> {
    use SqlInfo as I;
    let mut info = SqlInfoDataBuilder::new();
    info.append(I::FlightSqlServerName, "Duckherder");
    info.append(I::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(I::FlightSqlServerArrowVersion, ARROW_VERSION);
    info.append(I::FlightSqlServerReadOnly, false);
    info.append(I::FlightSqlServerSql, true);
    info.append(I::FlightSqlServerSubstrait, false);
    info.append(
        I::FlightSqlServerTransaction,
        SqlSupportedTransaction::Transaction as i32,
    );
    info.append(I::FlightSqlServerCancel, true);
    info.append(I::FlightSqlServerBulkIngestion, true);
    info.append(I::FlightSqlServerIngestTransactionsSupported, true);
    info.append(I::FlightSqlServerStatementTimeout, 0_i32);
    info.append(I::FlightSqlServerTransactionTimeout, 0_i32);
    info.append(I::SqlDdlCatalog, true);
    info.append(I::SqlDdlSchema, true);
    info.append(I::SqlDdlTable, true);
    names(&mut info);
    functions(&mut info);
    language(&mut info);
    limits(&mut info);
    transactions(&mut info);
    info.build()
}

fn names(info: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    let insensitive = SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i64;
    info.append(I::SqlIdentifierCase, insensitive);
    info.append(I::SqlQuotedIdentifierCase, insensitive);
    info.append(I::SqlIdentifierQuoteChar, "\"");
    info.append(I::SqlExtraNameCharacters, "");
    info.append(I::SqlSearchStringEscape, "\\");
    info.append(I::SqlSchemaTerm, "schema");
    info.append(I::SqlCatalogTerm, "database");
    info.append(I::SqlProcedureTerm, "macro");
    // 1: in front of the name.
    info.append(I::SqlCatalogAtStart, true);
}

fn functions(info: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    info.append(I::SqlKeywords, KEYWORDS);
    info.append(I::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    info.append(I::SqlStringFunctions, STRING_FUNCTIONS);
    info.append(I::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    info.append(I::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
}

fn language(info: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    info.append(I::SqlAllTablesAreSelectable, true);
    info.append(I::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedAtEnd as i64);
    info.append(I::SqlSupportsColumnAliasing, true);
    info.append(I::SqlNullPlusNullIsNull, true);
    info.append(I::SqlSupportsConvert, conversions());
    info.append(I::SqlSupportsTableCorrelationNames, true);
    info.append(I::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(I::SqlSupportsExpressionsInOrderBy, true);
    info.append(I::SqlSupportsOrderByUnrelated, true);
    // Bit masks: a bit for each value of the enumeration of that name.
    info.append(I::SqlSupportedGroupBy, 0b11_i32);
    info.append(I::SqlSupportsLikeEscapeClause, true);
    info.append(I::SqlSupportsNonNullableColumns, true);
    info.append(
        I::SqlSupportedGrammar,
        1_i32 << SupportedSqlGrammar::SqlMinimumGrammar as i32 | 0b110,
    );
    info.append(I::SqlAnsi92SupportedLevel, 0b11_i32);
    info.append(I::SqlSupportsIntegrityEnhancementFacility, true);
    info.append(
        I::SqlOuterJoinsSupportLevel,
        1_i32 << SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
    );
    info.append(I::SqlSchemasSupportedActions, 0b011_i32);
    info.append(I::SqlCatalogsSupportedActions, 0b011_i32);
    info.append(I::SqlSupportedPositionedCommands, 0_i32);
    info.append(I::SqlSelectForUpdateSupported, false);
    info.append(I::SqlStoredProceduresSupported, false);
    info.append(I::SqlStoredFunctionsUsingCallSyntaxSupported, false);
    info.append(I::SqlSupportedSubqueries, 0b1111_i32);
    info.append(I::SqlCorrelatedSubqueriesSupported, true);
    info.append(I::SqlSupportedUnions, 0b11_i32);
    info.append(I::SqlNamedParametersSupported, true);
    info.append(I::SqlLocatorsUpdateCopy, false);
}

/// Everything converts to text and back; numbers into each other, dates and timestamps too.
fn conversions() -> HashMap<i32, Vec<i32>> {
    use arrow_flight::sql::SqlSupportsConvert as C;
    let texts = [C::SqlConvertChar, C::SqlConvertVarchar, C::SqlConvertLongvarchar];
    let numbers = [
        C::SqlConvertBigint,
        C::SqlConvertDecimal,
        C::SqlConvertFloat,
        C::SqlConvertInteger,
        C::SqlConvertNumeric,
        C::SqlConvertReal,
        C::SqlConvertSmallint,
        C::SqlConvertTinyint,
    ];
    let times = [C::SqlConvertDate, C::SqlConvertTimestamp];
    let alone = [
        C::SqlConvertTime,
        C::SqlConvertIntervalDayTime,
        C::SqlConvertIntervalYearMonth,
        C::SqlConvertBinary,
        C::SqlConvertVarbinary,
        C::SqlConvertBit,
    ];
    let codes = |targets: &[C]| targets.iter().map(|target| *target as i32).collect::<Vec<_>>();
    let mut all = HashMap::new();
    for text in texts {
        let targets = [&texts[..], &numbers, &times, &alone].concat();
        all.insert(text as i32, codes(&targets));
    }
    for group in [&numbers[..], &times] {
        for from in group {
            all.insert(*from as i32, codes(&[group, &texts].concat()));
        }
    }
    for from in alone {
        all.insert(from as i32, codes(&[&[from][..], &texts].concat()));
    }
    all
}

/// 0: no limit, or none that is known.
fn limits(info: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    for limit in [
        I::SqlMaxBinaryLiteralLength,
        I::SqlMaxCharLiteralLength,
        I::SqlMaxColumnNameLength,
        I::SqlMaxColumnsInGroupBy,
        I::SqlMaxColumnsInIndex,
        I::SqlMaxColumnsInOrderBy,
        I::SqlMaxColumnsInSelect,
        I::SqlMaxColumnsInTable,
        I::SqlMaxConnections,
        I::SqlMaxCursorNameLength,
        I::SqlMaxIndexLength,
        I::SqlDbSchemaNameLength,
        I::SqlMaxProcedureNameLength,
        I::SqlMaxCatalogNameLength,
        I::SqlMaxRowSize,
        I::SqlMaxStatementLength,
        I::SqlMaxStatements,
        I::SqlMaxTableNameLength,
        I::SqlMaxTablesInSelect,
        I::SqlMaxUsernameLength,
    ] {
        info.append(limit, 0_i64);
    }
    info.append(I::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions(info: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    info.append(
        I::SqlDefaultTransactionIsolation,
        SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i64,
    );
    info.append(
        I::SqlSupportedTransactionsIsolationLevels,
        1_i32 << SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32,
    );
    info.append(I::SqlTransactionsSupported, true);
    info.append(I::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(I::SqlDataDefinitionsInTransactionsIgnored, false);
    // Forward only, read only.
    info.append(I::SqlSupportedResultSetTypes, 0b10_i32);
    info.append(I::SqlSupportedConcurrenciesForResultSetUnspecified, 0b10_i32);
    info.append(I::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10_i32);
    info.append(I::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    info.append(I::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
    info.append(I::SqlBatchUpdatesSupported, true);
    info.append(I::SqlSavepointsSupported, false);
}
