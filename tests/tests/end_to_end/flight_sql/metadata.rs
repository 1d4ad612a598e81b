//! Catalogs, schemas, tables, keys, types, and what the server can do.

use super::support::{Raw, descriptor, start, texts, ticket, update};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::IpcMessage;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    ProstMessageExt, SqlInfo,
};

const TABLES: &str = "CREATE SCHEMA s_1; CREATE SCHEMA sx1; \
     CREATE TABLE parent (a INTEGER, b VARCHAR, u INTEGER UNIQUE, PRIMARY KEY (b, a)); \
     CREATE TABLE child (x VARCHAR, y INTEGER, v INTEGER REFERENCES parent (u), FOREIGN KEY (x, y) REFERENCES parent (b, a)); \
     CREATE TABLE s_1.t (i INTEGER NOT NULL, h HUGEINT, d DECIMAL(10, 3), v VARIANT); \
     COMMENT ON COLUMN s_1.t.i IS 'an i'; \
     CREATE VIEW a_view AS SELECT 1 AS one; CREATE TEMP TABLE tmp (i INTEGER); \
     ATTACH ':memory:' AS other; CREATE TABLE other.main.\"odd%name\" (i INTEGER)";

/// What a client gets, once its schema has been found to be what was announced.
async fn fetch(raw: &mut Raw, command: &impl ProstMessageExt) -> Vec<RecordBatch> {
    let info = raw.info(command).await.unwrap();
    let announced = info.clone().try_decode_schema().unwrap();
    let batches = raw.get(ticket(&info)).await.unwrap();
    assert!(batches.iter().all(|batch| *batch.schema() == announced));
    let request = raw.request(descriptor(command));
    let schema = raw.service().get_schema(request).await.unwrap().into_inner();
    assert_eq!(Schema::try_from(IpcMessage(schema.schema)).unwrap(), announced);
    batches
}

async fn rows(raw: &mut Raw, command: &impl ProstMessageExt) -> Vec<Vec<String>> {
    texts(&fetch(raw, command).await)
}

/// A client whose session has made the tables.
async fn with_tables() -> (duckherder_tests::duckling::LocalDuckling, Raw) {
    let (duckling, mut client) = start().await;
    update(&mut client, TABLES).await;
    let token = client.token().unwrap();
    let raw = Raw::anonymous(&duckling)
        .await
        .with("authorization", format!("Bearer {token}"));
    (duckling, raw)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn catalogs_and_schemas() {
    let (_duckling, mut raw) = with_tables().await;
    let catalogs = rows(&mut raw, &CommandGetCatalogs {}).await;
    assert_eq!(catalogs.concat(), ["memory", "other", "temp"]);
    let all = rows(&mut raw, &CommandGetDbSchemas::default()).await;
    assert_eq!(
        all,
        [
            ["memory", "main"],
            ["memory", "s_1"],
            ["memory", "sx1"],
            ["other", "main"],
            ["temp", "main"]
        ]
    );
    let mut matching = async |catalog: Option<&str>, pattern: Option<&str>| {
        let command = CommandGetDbSchemas {
            catalog: catalog.map(str::to_owned),
            db_schema_filter_pattern: pattern.map(str::to_owned),
        };
        rows(&mut raw, &command).await.len()
    };
    assert_eq!(matching(Some("memory"), None).await, 3);
    assert_eq!(matching(None, Some("s_1")).await, 2);
    assert_eq!(matching(None, Some("s\\_1")).await, 1);
    assert_eq!(matching(None, Some("S%")).await, 2);
    assert_eq!(matching(Some("other"), Some("s%")).await, 0);
    // Without a catalog there is nothing.
    assert_eq!(matching(Some(""), None).await, 0);
    assert_eq!(matching(Some("' OR true --"), Some("' OR true --")).await, 0);
}

#[tokio::test]
async fn tables_by_pattern_and_type() {
    let (_duckling, mut raw) = with_tables().await;
    let all = rows(&mut raw, &CommandGetTables::default()).await;
    assert_eq!(
        all,
        [
            ["memory", "main", "a_view", "VIEW"],
            ["memory", "main", "child", "TABLE"],
            ["memory", "main", "parent", "TABLE"],
            ["memory", "s_1", "t", "TABLE"],
            ["other", "main", "odd%name", "TABLE"],
            ["temp", "main", "tmp", "LOCAL TEMPORARY"],
        ]
    );
    assert_eq!(
        rows(&mut raw, &CommandGetTableTypes {}).await.concat(),
        ["LOCAL TEMPORARY", "TABLE", "VIEW"]
    );
    let mut named = async |command: CommandGetTables| -> Vec<String> {
        rows(&mut raw, &command)
            .await
            .into_iter()
            .map(|row| row[2].clone())
            .collect()
    };
    let pattern = |pattern: &str| CommandGetTables {
        table_name_filter_pattern: some(pattern),
        ..CommandGetTables::default()
    };
    assert_eq!(named(pattern("%PARE%")).await, ["parent"]);
    assert_eq!(named(pattern("odd\\%%")).await, ["odd%name"]);
    assert_eq!(named(pattern("")).await, Vec::<String>::new());
    let types = |types: &[&str]| CommandGetTables {
        table_types: types.iter().map(|text| (*text).to_owned()).collect(),
        ..CommandGetTables::default()
    };
    assert_eq!(named(types(&["VIEW"])).await, ["a_view"]);
    assert_eq!(named(types(&["VIEW", "LOCAL TEMPORARY"])).await, ["a_view", "tmp"]);
    assert_eq!(named(types(&["SYSTEM TABLE"])).await, Vec::<String>::new());
    let within = CommandGetTables {
        catalog: some("memory"),
        db_schema_filter_pattern: some("s%"),
        ..CommandGetTables::default()
    };
    assert_eq!(named(within).await, ["t"]);
}

#[tokio::test]
async fn tables_come_with_their_columns_if_asked() {
    let (_duckling, mut raw) = with_tables().await;
    let command = CommandGetTables {
        db_schema_filter_pattern: some("s\\_1"),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let batches = fetch(&mut raw, &command).await;
    let bytes = batches[0].column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(bytes.into())).unwrap();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type()).take(3).collect();
    assert_eq!(
        types,
        [
            &DataType::Int32,
            &DataType::Decimal128(38, 0),
            &DataType::Decimal128(10, 3)
        ]
    );
    assert_eq!(
        schema
            .fields()
            .iter()
            .map(|field| field.is_nullable())
            .collect::<Vec<_>>(),
        [false, true, true, true]
    );
    let told = |field: &Field, key: &str| field.metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned();
    let first = schema.field(0);
    for (key, value) in [
        ("CATALOG_NAME", "memory"),
        ("SCHEMA_NAME", "s_1"),
        ("TABLE_NAME", "t"),
        ("TYPE_NAME", "INTEGER"),
        ("PRECISION", "10"),
        ("SCALE", "0"),
        ("REMARKS", "an i"),
        ("IS_SEARCHABLE", "1"),
    ] {
        assert_eq!(told(first, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(told(schema.field(2), "SCALE").as_deref(), Some("3"));
    assert_eq!(told(schema.field(3), "TYPE_NAME").as_deref(), Some("VARIANT"));
}

#[tokio::test]
async fn a_view_that_does_not_bind_any_more_is_still_listed() {
    let (duckling, mut client) = start().await;
    update(
        &mut client,
        "CREATE TABLE t (i INTEGER); CREATE VIEW v AS FROM t; DROP TABLE t",
    )
    .await;
    let mut raw = Raw::logged_in(&duckling).await;
    let command = CommandGetTables {
        include_schema: true,
        ..CommandGetTables::default()
    };
    assert_eq!(rows(&mut raw, &command).await[0][2], "v");
}

#[tokio::test]
async fn keys() {
    let (_duckling, mut raw) = with_tables().await;
    let command = CommandGetPrimaryKeys {
        catalog: None,
        db_schema: None,
        table: "Parent".to_owned(),
    };
    let primary = rows(&mut raw, &command).await;
    assert_eq!(primary.len(), 2);
    assert_eq!(primary[0][..5], ["memory", "main", "parent", "b", "1"]);
    assert_eq!(primary[1][..5], ["memory", "main", "parent", "a", "2"]);
    let key = primary[0][5].clone();

    let command = CommandGetImportedKeys {
        catalog: some("memory"),
        db_schema: some("main"),
        table: "child".to_owned(),
    };
    let imported = rows(&mut raw, &command).await;
    let command = CommandGetExportedKeys {
        catalog: None,
        db_schema: None,
        table: "parent".to_owned(),
    };
    let exported = rows(&mut raw, &command).await;
    let command = CommandGetCrossReference {
        pk_table: "parent".to_owned(),
        fk_table: "child".to_owned(),
        ..CommandGetCrossReference::default()
    };
    let crossed = rows(&mut raw, &command).await;
    for rows in [&imported, &exported, &crossed] {
        assert_eq!(rows.len(), 3);
        let pairs: Vec<_> = rows
            .iter()
            .map(|row| (row[3].as_str(), row[7].as_str(), row[8].as_str()))
            .collect();
        for pair in [("b", "x", "1"), ("a", "y", "2"), ("u", "v", "1")] {
            assert!(pairs.contains(&pair), "{pairs:?}");
        }
        let composite: Vec<_> = rows.iter().filter(|row| row[3] != "u").collect();
        assert!(composite[0][8] == "1" && composite[1][8] == "2");
        assert!(composite.iter().all(|row| row[10] == key));
        // No action is the only rule.
        assert!(rows.iter().all(|row| row[11] == "3" && row[12] == "3"));
    }
    let command = CommandGetCrossReference {
        pk_table: "child".to_owned(),
        fk_table: "parent".to_owned(),
        ..CommandGetCrossReference::default()
    };
    assert!(rows(&mut raw, &command).await.is_empty());
    let command = CommandGetPrimaryKeys {
        catalog: some("other"),
        db_schema: None,
        table: "parent".to_owned(),
    };
    assert!(rows(&mut raw, &command).await.is_empty());
}

#[tokio::test]
async fn metadata_sees_the_open_transaction() {
    let (duckling, mut client) = start().await;
    let token = client.token().unwrap();
    let mut raw = Raw::anonymous(&duckling)
        .await
        .with("authorization", format!("Bearer {token}"));
    let transaction = client.begin_transaction().await.unwrap();
    client
        .execute_update("CREATE TABLE t (i INTEGER)".to_owned(), Some(transaction))
        .await
        .unwrap();
    assert_eq!(rows(&mut raw, &CommandGetTables::default()).await.len(), 1);
    let mut other = Raw::logged_in(&duckling).await;
    assert!(rows(&mut other, &CommandGetTables::default()).await.is_empty());
}

#[tokio::test]
async fn sql_info_and_types() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::anonymous(&duckling).await;
    let everything = rows(&mut raw, &CommandGetSqlInfo { info: vec![] }).await;
    assert!(everything.len() > 80, "{}", everything.len());
    let mut ask = async |info: SqlInfo| {
        let command = CommandGetSqlInfo {
            info: vec![info as u32],
        };
        let rows = rows(&mut raw, &command).await;
        assert_eq!(rows.len(), 1);
        rows[0][1].clone()
    };
    assert!(ask(SqlInfo::FlightSqlServerName).await.contains("Duckherder"));
    assert!(ask(SqlInfo::SqlIdentifierQuoteChar).await.contains('"'));
    assert!(ask(SqlInfo::FlightSqlServerTransaction).await.contains('1'));
    let unknown = CommandGetSqlInfo {
        info: vec![u32::MAX, 99_999],
    };
    assert!(rows(&mut raw, &unknown).await.is_empty());
    let many = CommandGetSqlInfo {
        info: vec![0; 1_000_000],
    };
    assert_eq!(rows(&mut raw, &many).await.len(), 1);
    let types = rows(&mut raw, &CommandGetXdbcTypeInfo { data_type: None }).await;
    assert!(types.is_sorted_by_key(|row| (row[1].parse::<i32>().unwrap(), row[0].clone())));
    let number = |name: &str| types.iter().find(|row| row[0] == name).unwrap()[1].clone();
    for (name, data_type) in [
        ("VARCHAR", "12"),
        ("BIGINT", "-5"),
        ("TINYINT", "-6"),
        ("BOOLEAN", "-7"),
        ("BLOB", "-4"),
        ("TIMESTAMP", "93"),
        ("LIST", "0"),
    ] {
        assert_eq!(number(name), data_type, "{name}");
    }
    let integers = CommandGetXdbcTypeInfo { data_type: Some(4) };
    assert!(rows(&mut raw, &integers).await.iter().all(|row| row[1] == "4"));
}
