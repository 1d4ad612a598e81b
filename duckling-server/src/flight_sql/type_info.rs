//! DuckDB's types, as ODBC and JDBC describe types.

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

/// ODBC's numbers of types that Flight SQL's enumeration lacks cannot be told: such types are texts and numerics here.
pub fn build() -> Result<XdbcTypeInfoData, FlightError> {
    use XdbcDataType as X;
    let mut builder = XdbcTypeInfoDataBuilder::new();
    let mut integer = |name: &str, data_type, digits, unsigned| {
        builder.append(XdbcTypeInfo {
            unsigned_attribute: Some(unsigned),
            num_prec_radix: Some(10),
            minimum_scale: Some(0),
            maximum_scale: Some(0),
            fixed_prec_scale: true,
            auto_increment: Some(false),
            searchable: Searchable::Basic,
            ..named(name, data_type, digits)
        });
    };
    integer("TINYINT", X::XdbcSmallint, 3, false);
    integer("SMALLINT", X::XdbcSmallint, 5, false);
    integer("INTEGER", X::XdbcInteger, 10, false);
    integer("BIGINT", X::XdbcNumeric, 19, false);
    integer("HUGEINT", X::XdbcNumeric, 38, false);
    integer("UTINYINT", X::XdbcSmallint, 3, true);
    integer("USMALLINT", X::XdbcInteger, 5, true);
    integer("UINTEGER", X::XdbcNumeric, 10, true);
    integer("UBIGINT", X::XdbcNumeric, 20, true);
    integer("UHUGEINT", X::XdbcNumeric, 38, true);
    for (name, data_type, bits) in [("FLOAT", X::XdbcReal, 24), ("DOUBLE", X::XdbcDouble, 53)] {
        builder.append(XdbcTypeInfo {
            unsigned_attribute: Some(false),
            num_prec_radix: Some(2),
            searchable: Searchable::Basic,
            ..named(name, data_type, bits)
        });
    }
    builder.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(10),
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        searchable: Searchable::Basic,
        ..named("DECIMAL", X::XdbcDecimal, 38)
    });
    for name in ["VARCHAR", "UUID", "JSON", "ENUM", "BIT", "BIGNUM"] {
        builder.append(XdbcTypeInfo {
            case_sensitive: true,
            ..quoted(named(name, X::XdbcVarchar, i32::MAX), "'")
        });
    }
    for (name, data_type, size, subcode) in [
        ("DATE", X::XdbcDate, 10, None),
        ("TIME", X::XdbcTime, 15, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
        (
            "TIME WITH TIME ZONE",
            X::XdbcTime,
            24,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimeWithTimezone),
        ),
        (
            "TIMESTAMP",
            X::XdbcTimestamp,
            26,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        ),
        (
            "TIMESTAMP WITH TIME ZONE",
            X::XdbcTimestamp,
            32,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
        ),
        ("INTERVAL", X::XdbcInterval, 64, None),
    ] {
        builder.append(XdbcTypeInfo {
            datetime_subcode: subcode,
            searchable: Searchable::Basic,
            ..quoted(named(name, data_type, size), "'")
        });
    }
    for name in [
        "BOOLEAN", "BLOB", "LIST", "ARRAY", "STRUCT", "MAP", "UNION", "VARIANT", "GEOMETRY",
    ] {
        builder.append(XdbcTypeInfo {
            searchable: Searchable::Basic,
            ..named(name, X::XdbcUnknownType, i32::MAX)
        });
    }
    builder.build()
}

fn named(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type,
        sql_data_type: data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    }
}

fn quoted(info: XdbcTypeInfo, quote: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(quote.to_owned()),
        literal_suffix: Some(quote.to_owned()),
        ..info
    }
}
