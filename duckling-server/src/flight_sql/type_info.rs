//! DuckDB's types, as ODBC and JDBC describe types.

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode as Subcode};

/// Types that have no number in ODBC are what their values look like to a client: texts and numerics.
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
    integer("TINYINT", X::XdbcTinyint, 3, false);
    integer("SMALLINT", X::XdbcSmallint, 5, false);
    integer("INTEGER", X::XdbcInteger, 10, false);
    integer("BIGINT", X::XdbcBigint, 19, false);
    integer("HUGEINT", X::XdbcNumeric, 38, false);
    // The smallest type that holds them for clients who know of no unsigned ones.
    integer("UTINYINT", X::XdbcSmallint, 3, true);
    integer("USMALLINT", X::XdbcInteger, 5, true);
    integer("UINTEGER", X::XdbcBigint, 10, true);
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
    let mut datetime = |name: &str, data_type, size, subcode| {
        builder.append(XdbcTypeInfo {
            sql_data_type: X::XdbcDatetime,
            datetime_subcode: Some(subcode),
            searchable: Searchable::Basic,
            ..quoted(named(name, data_type, size), "'")
        });
    };
    // The number of years is that of dates too.
    datetime("DATE", X::XdbcDate, 10, Subcode::XdbcSubcodeYear);
    datetime("TIME", X::XdbcTime, 15, Subcode::XdbcSubcodeTime);
    let with_zone = Subcode::XdbcSubcodeTimeWithTimezone;
    datetime("TIME WITH TIME ZONE", X::XdbcTime, 24, with_zone);
    datetime("TIMESTAMP", X::XdbcTimestamp, 26, Subcode::XdbcSubcodeTimestamp);
    let with_zone = Subcode::XdbcSubcodeTimestampWithTimezone;
    datetime("TIMESTAMP WITH TIME ZONE", X::XdbcTimestamp, 32, with_zone);
    builder.append(XdbcTypeInfo {
        searchable: Searchable::Basic,
        ..quoted(named("INTERVAL", X::XdbcInterval, 64), "'")
    });
    builder.append(XdbcTypeInfo {
        searchable: Searchable::Basic,
        ..named("BOOLEAN", X::XdbcBit, 1)
    });
    builder.append(XdbcTypeInfo {
        searchable: Searchable::Basic,
        ..quoted(named("BLOB", X::XdbcLongvarbinary, i32::MAX), "'")
    });
    for name in ["LIST", "ARRAY", "STRUCT", "MAP", "UNION", "VARIANT", "GEOMETRY"] {
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
