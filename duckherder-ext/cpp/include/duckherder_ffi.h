// Generated from duckherder-ext/src/ffi by `cargo xtask codegen`: do not edit.
// The functions that DuckDB's C++ side calls; what they promise and ask for is documented there.

#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
struct ArrowSchema;
struct ArrowArray;


/**
 * How a call went.
 */
typedef enum DhStatus {
  /**
   * Well; outputs are set.
   */
  DhOk = 0,
  /**
   * There is nothing (more); outputs are not set.
   */
  DhEnd = 1,
  /**
   * Badly; `error` is set.
   */
  DhFailed = 2,
  /**
   * Not yet: the call would have to wait.
   */
  DhPending = 3,
} DhStatus;

/**
 * Entries of a catalog that are no tables.
 */
typedef enum DhDefinitionKind {
  /**
   * Sequences.
   */
  DhSequence = 0,
  /**
   * Indexes.
   */
  DhIndex = 1,
  /**
   * Types.
   */
  DhType = 2,
  /**
   * Scalar macros.
   */
  DhMacro = 3,
  /**
   * Table macros.
   */
  DhTableMacro = 4,
} DhDefinitionKind;

/**
 * What to do about the table that rows are sent to.
 */
typedef enum DhIngestMode {
  /**
   * It exists.
   */
  DhAppend = 0,
  /**
   * It must not exist, and is made.
   */
  DhCreate = 1,
  /**
   * It is made anew.
   */
  DhCreateOrReplace = 2,
  /**
   * A temporary table of the session, replacing one of that name.
   */
  DhCreateTemporary = 3,
  /**
   * It exists. It has columns of the same names; those that it has besides get their defaults.
   */
  DhAppendByName = 4,
} DhIngestMode;

/**
 * Result columns; what its views point at lives as long as it.
 */
typedef struct DhColumns DhColumns;

/**
 * Entries of the catalog that are no tables; what its views point at lives as long as it.
 */
typedef struct DhDefinitions DhDefinitions;

/**
 * Batches of a result that one thread reads.
 */
typedef struct DhGroup DhGroup;

/**
 * An attached duckling.
 */
typedef struct DhRemote DhRemote;

/**
 * A result being read.
 */
typedef struct DhScan DhScan;

/**
 * A client connection's session on an attached duckling.
 */
typedef struct DhSession DhSession;

/**
 * Schemas and tables; what its views point at lives as long as it.
 */
typedef struct DhTables DhTables;

/**
 * An upload under way.
 */
typedef struct DhUpload DhUpload;

/**
 * Text that the receiver owns and frees with `buffer_free`.
 */
typedef struct DhBuffer {
  /**
   * First byte; null if there is no text.
   */
  uint8_t *ptr;
  /**
   * Bytes.
   */
  size_t len;
} DhBuffer;

/**
 * How a waiting call finds out that the user wants it to stop. For the length of that call only.
 */
typedef struct DhInterrupt {
  /**
   * Whether the query was interrupted. Must not throw. Null: never.
   */
  bool (*check)(void *context);
  /**
   * Its argument.
   */
  void *context;
} DhInterrupt;

/**
 * UTF-8 text that somebody else owns. `ptr` may be null if `len` is 0.
 */
typedef struct DhText {
  /**
   * First byte.
   */
  const uint8_t *ptr;
  /**
   * Bytes.
   */
  size_t len;
} DhText;

/**
 * One option of ATTACH.
 */
typedef struct DhOption {
  /**
   * As written.
   */
  struct DhText name;
  /**
   * As text.
   */
  struct DhText value;
} DhOption;

/**
 * How a scan thread is told that it is worth asking again. Exactly one of the two is called, once, from any thread,
 * possibly after the call it was passed to: unless that call fails or answers anything but `DhPending`, in which case
 * `discard` has been called.
 */
typedef struct DhWaker {
  /**
   * Wakes, and frees the context. Must not throw.
   */
  void (*wake)(void *context);
  /**
   * Frees the context. Must not throw.
   */
  void (*discard)(void *context);
  /**
   * Their argument.
   */
  void *context;
} DhWaker;

/**
 * One entry that is no table.
 */
typedef struct DhDefinitionView {
  /**
   * The path of its schema, as SQL in which every name is quoted.
   */
  struct DhText schema_path;
  /**
   * Name.
   */
  struct DhText name;
  /**
   * Whether it has a comment.
   */
  bool has_comment;
  /**
   * Comment.
   */
  struct DhText comment;
  /**
   * The CREATE statement.
   */
  struct DhText definition_sql;
  /**
   * The table of an index.
   */
  struct DhText table_name;
  /**
   * The number of the entry on the server.
   */
  uint64_t oid;
  /**
   * Where a sequence began.
   */
  int64_t start_value;
  /**
   * Whether it is a sequence that has been used.
   */
  bool has_last_value;
  /**
   * Its last value.
   */
  int64_t last_value;
  /**
   * Two views of the same identity are of one and the same description, as long as one of the lists lives.
   */
  const void *identity;
  /**
   * Tags.
   */
  size_t tags_len;
} DhDefinitionView;

/**
 * One table or view.
 */
typedef struct DhTableView {
  /**
   * The path of its schema, as SQL in which every name is quoted.
   */
  struct DhText schema_path;
  /**
   * Name.
   */
  struct DhText table_name;
  /**
   * Whether it has a comment.
   */
  bool has_comment;
  /**
   * Comment.
   */
  struct DhText comment;
  /**
   * The CREATE statement; empty if unknown.
   */
  struct DhText definition_sql;
  /**
   * Two views of the same identity are of one and the same description, as long as one of the lists lives.
   */
  const void *identity;
  /**
   * A view, not a table.
   */
  bool is_view;
  /**
   * Whether `estimated_rows` is known.
   */
  bool has_estimated_rows;
  /**
   * Rows, about.
   */
  uint64_t estimated_rows;
  /**
   * The number of the entry on the server.
   */
  uint64_t oid;
  /**
   * Indexes, those of keys included.
   */
  uint64_t index_count;
  /**
   * Columns.
   */
  size_t columns_len;
  /**
   * Triggers.
   */
  size_t triggers_len;
  /**
   * Tags.
   */
  size_t tags_len;
} DhTableView;

/**
 * One column.
 */
typedef struct DhColumnView {
  /**
   * Name.
   */
  struct DhText name;
  /**
   * DuckDB's text of the type.
   */
  struct DhText type_text;
  /**
   * SQL of the default; empty for none.
   */
  struct DhText default_sql;
  /**
   * NOT NULL.
   */
  bool not_null;
  /**
   * Whether it has a comment.
   */
  bool has_comment;
  /**
   * Comment.
   */
  struct DhText comment;
} DhColumnView;

/**
 * One index in which a value may be once.
 */
typedef struct DhUniqueIndexView {
  /**
   * Where its columns are among the table's, if the server is right.
   */
  const uint32_t *columns;
  /**
   * Number of `columns`.
   */
  size_t columns_len;
  /**
   * Whether it is that of the primary key.
   */
  bool is_primary_key;
} DhUniqueIndexView;

/**
 * What C++ can ask for. What each function promises and asks for is documented with its definition.
 */
typedef struct DhApi {
  /**
   * Frees a buffer. Null is fine; twice is not.
   */
  void (*buffer_free)(struct DhBuffer buffer);
  /**
   * Starts the duckling inside this process, and workers for it; its address goes to `address`.
   */
  enum DhStatus (*local_server_start)(uint16_t port,
                                      uint32_t workers,
                                      struct DhInterrupt interrupt,
                                      struct DhBuffer *address,
                                      struct DhBuffer *error);
  /**
   * Stops all ducklings inside this process; the address that the server had, empty if there was none, goes to
   * `address`, the number of workers to `workers`.
   */
  enum DhStatus (*local_server_stop)(struct DhInterrupt interrupt,
                                     struct DhBuffer *address,
                                     uint64_t *workers,
                                     struct DhBuffer *error);
  /**
   * Starts a duckling inside this process that is to be somebody's worker; its address goes to `address`.
   */
  enum DhStatus (*local_worker_start)(uint16_t port,
                                      struct DhInterrupt interrupt,
                                      struct DhBuffer *address,
                                      struct DhBuffer *error);
  /**
   * Makes a duckling inside this process a worker of the coordinator at that address, under that id; its own address
   * goes to `address`.
   */
  enum DhStatus (*local_worker_join)(struct DhText id,
                                     struct DhText coordinator,
                                     struct DhInterrupt interrupt,
                                     struct DhBuffer *address,
                                     struct DhBuffer *error);
  /**
   * Makes the duckling at an address a worker of a coordinator; its id goes to `id`, its address to `address`.
   */
  enum DhStatus (*worker_register)(const struct DhRemote *remote,
                                   struct DhText worker,
                                   struct DhInterrupt interrupt,
                                   struct DhBuffer *id,
                                   struct DhBuffer *address,
                                   struct DhBuffer *error);
  /**
   * Takes a worker, named by its id or its address, out of a herd, one that is `lost` with its rows; its id goes to
   * `id`, its address to `address`.
   */
  enum DhStatus (*worker_unregister)(const struct DhRemote *remote,
                                     struct DhText worker,
                                     bool lost,
                                     struct DhInterrupt interrupt,
                                     struct DhBuffer *id,
                                     struct DhBuffer *address,
                                     struct DhBuffer *error);
  /**
   * How many workers of a coordinator statements can use.
   */
  enum DhStatus (*worker_count)(const struct DhRemote *remote,
                                struct DhInterrupt interrupt,
                                uint64_t *count,
                                struct DhBuffer *error);
  /**
   * Forgets the query history.
   */
  enum DhStatus (*history_clear)(struct DhBuffer *error);
  /**
   * Connects to a duckling.
   */
  enum DhStatus (*remote_attach)(struct DhText catalog_name,
                                 struct DhText duckdb_version,
                                 const struct DhOption *options,
                                 size_t options_len,
                                 struct DhInterrupt interrupt,
                                 struct DhRemote **remote,
                                 struct DhBuffer *error);
  /**
   * Drops an attached duckling. Sessions and scans under way keep what they need.
   */
  void (*remote_free)(struct DhRemote *remote);
  /**
   * `host:port` of an attached duckling, valid as long as it is.
   */
  struct DhText (*remote_address)(const struct DhRemote *remote);
  /**
   * Sets an alias.
   */
  enum DhStatus (*alias_register)(const struct DhRemote *remote,
                                  struct DhText local_name,
                                  struct DhText remote_name,
                                  struct DhBuffer *error);
  /**
   * Removes an alias.
   */
  enum DhStatus (*alias_unregister)(const struct DhRemote *remote,
                                    struct DhText local_name,
                                    struct DhBuffer *error);
  /**
   * What an alias stands for: schema (empty for the default one) and table. `DhEnd` if it is no alias.
   */
  enum DhStatus (*alias_resolve)(const struct DhRemote *remote,
                                 struct DhText local_name,
                                 struct DhBuffer *schema_name,
                                 struct DhBuffer *table_name,
                                 struct DhBuffer *error);
  /**
   * Makes a session, which is opened on the duckling with its first request.
   */
  enum DhStatus (*session_open)(const struct DhRemote *remote,
                                struct DhSession **session,
                                struct DhBuffer *error);
  /**
   * Closes a session; the server rolls back what is open.
   */
  void (*session_free)(struct DhSession *session);
  /**
   * Commits the server's part of the transaction, if it has one.
   */
  enum DhStatus (*session_commit)(const struct DhSession *session,
                                  struct DhInterrupt interrupt,
                                  struct DhBuffer *error);
  /**
   * Rolls the server's part of the transaction back, if it has one. Never fails.
   */
  void (*session_rollback)(const struct DhSession *session);
  /**
   * Drops a temporary table of the session, if it can. Never fails.
   */
  void (*session_drop_temporary)(const struct DhSession *session, struct DhText name);
  /**
   * Loads a DuckDB extension on the server.
   */
  enum DhStatus (*load_extension)(const struct DhSession *session,
                                  struct DhText name,
                                  struct DhInterrupt interrupt,
                                  struct DhBuffer *error);
  /**
   * Starts a statement and waits for its result's schema. `typed` is the user's text, if the statement was made of that
   * alone, and empty otherwise.
   */
  enum DhStatus (*scan_start)(const struct DhSession *session,
                              struct DhText sql,
                              struct DhText typed,
                              bool transactional,
                              bool writes,
                              struct DhInterrupt interrupt,
                              struct DhScan **scan,
                              struct DhBuffer *error);
  /**
   * The columns that a statement's result will most likely have, if it was sent ahead: a result of these without rows.
   * Else `DhEnd`.
   */
  enum DhStatus (*scan_foreseen)(const struct DhSession *session,
                                 struct DhText sql,
                                 struct DhScan **scan,
                                 struct DhBuffer *error);
  /**
   * Whether two results have the same columns.
   */
  bool (*scan_has_columns_of)(const struct DhScan *scan, const struct DhScan *other);
  /**
   * Whether all of a result is there, and one group at most.
   */
  bool (*scan_is_one_group)(const struct DhScan *scan);
  /**
   * Reads the query history.
   */
  enum DhStatus (*scan_history)(struct DhScan **scan, struct DhBuffer *error);
  /**
   * The Arrow schema of a result; the caller releases it.
   */
  enum DhStatus (*scan_schema)(const struct DhScan *scan,
                               struct ArrowSchema *schema,
                               struct DhBuffer *error);
  /**
   * The DuckDB type text of a result column, valid as long as the result; empty if the Arrow type says it all.
   */
  struct DhText (*scan_type_text)(const struct DhScan *scan, size_t column);
  /**
   * The next group of batches, for one thread. `DhEnd` after the last one.
   */
  enum DhStatus (*scan_next)(const struct DhScan *scan,
                             struct DhInterrupt interrupt,
                             struct DhGroup **group,
                             struct DhBuffer *error);
  /**
   * As `scan_next`, but `DhPending` instead of waiting: then `waker` is called.
   */
  enum DhStatus (*scan_next_or_wake)(const struct DhScan *scan,
                                     struct DhWaker waker,
                                     struct DhGroup **group,
                                     struct DhBuffer *error);
  /**
   * The place of a group in its result: 0, 1, 2 …
   */
  uint64_t (*group_index)(const struct DhGroup *group);
  /**
   * Takes the next batch out of a group: a struct array the caller releases. `DhEnd` after the last one.
   */
  enum DhStatus (*group_next)(struct DhGroup *group,
                              struct ArrowArray *array,
                              struct DhBuffer *error);
  /**
   * Lets go of a group.
   */
  void (*group_free)(struct DhGroup *group);
  /**
   * Rows handed out so far.
   */
  uint64_t (*scan_rows_read)(const struct DhScan *scan);
  /**
   * How far the statement is, from 0 to 1, as the duckling estimates it; -1 if that is not known.
   */
  double (*scan_progress)(const struct DhScan *scan);
  /**
   * Ends a result; the statement is cancelled if it still runs.
   */
  void (*scan_free)(struct DhScan *scan);
  /**
   * The columns of a statement's result, without running it.
   */
  enum DhStatus (*describe)(const struct DhSession *session,
                            struct DhText sql,
                            struct DhInterrupt interrupt,
                            struct DhColumns **described,
                            struct DhBuffer *error);
  /**
   * Looks a table or view up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With
   * `validate`, never an outdated answer.
   */
  enum DhStatus (*lookup_table)(const struct DhSession *session,
                                struct DhText schema_path,
                                struct DhText table_name,
                                bool validate,
                                struct DhInterrupt interrupt,
                                struct DhTables **tables,
                                struct DhBuffer *error);
  /**
   * Whether the schema of that path, which is SQL, exists: `DhOk`, or `DhEnd` if not.
   */
  enum DhStatus (*lookup_schema)(const struct DhSession *session,
                                 struct DhText schema_path,
                                 struct DhInterrupt interrupt,
                                 struct DhBuffer *error);
  /**
   * Whether the server has a function of this name, in lower case: `DhOk`, or `DhEnd` if not.
   */
  enum DhStatus (*has_function)(const struct DhSession *session,
                                struct DhText name,
                                struct DhInterrupt interrupt,
                                struct DhBuffer *error);
  /**
   * Lists the entries of one kind. Triggers are with their tables.
   */
  enum DhStatus (*list_definitions)(const struct DhSession *session,
                                    enum DhDefinitionKind kind,
                                    struct DhInterrupt interrupt,
                                    struct DhDefinitions **definitions,
                                    struct DhBuffer *error);
  /**
   * Looks a type or macro up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With
   * `validate`, never an outdated answer.
   */
  enum DhStatus (*lookup_definition)(const struct DhSession *session,
                                     enum DhDefinitionKind kind,
                                     struct DhText schema_path,
                                     struct DhText name,
                                     bool validate,
                                     struct DhInterrupt interrupt,
                                     struct DhDefinitions **definitions,
                                     struct DhBuffer *error);
  /**
   * Frees a list of definitions.
   */
  void (*definitions_free)(struct DhDefinitions *definitions);
  /**
   * One definition. `DhEnd` past the end.
   */
  enum DhStatus (*definitions_get)(const struct DhDefinitions *definitions,
                                   size_t index,
                                   struct DhDefinitionView *view);
  /**
   * One tag of a definition. `DhEnd` past the end.
   */
  enum DhStatus (*definitions_tag)(const struct DhDefinitions *definitions,
                                   size_t index,
                                   size_t tag,
                                   struct DhText *name,
                                   struct DhText *value);
  /**
   * Lists everything in the remote database.
   */
  enum DhStatus (*list_tables)(const struct DhSession *session,
                               struct DhInterrupt interrupt,
                               struct DhTables **tables,
                               struct DhBuffer *error);
  /**
   * Frees a list.
   */
  void (*tables_free)(struct DhTables *tables);
  /**
   * Number of schemas.
   */
  size_t (*tables_schemas_len)(const struct DhTables *tables);
  /**
   * Path of a schema, as SQL in which every name is quoted; empty past the end.
   */
  struct DhText (*tables_schema)(const struct DhTables *tables, size_t index);
  /**
   * Number of tables.
   */
  size_t (*tables_len)(const struct DhTables *tables);
  /**
   * One table. `DhEnd` past the end.
   */
  enum DhStatus (*tables_get)(const struct DhTables *tables, size_t index, struct DhTableView *view);
  /**
   * One column of a table. `DhEnd` past the end.
   */
  enum DhStatus (*tables_column)(const struct DhTables *tables,
                                 size_t table,
                                 size_t column,
                                 struct DhColumnView *view);
  /**
   * One index of a table in which a value may be once. `DhEnd` past the end.
   */
  enum DhStatus (*tables_unique_index)(const struct DhTables *tables,
                                       size_t table,
                                       size_t index,
                                       struct DhUniqueIndexView *view);
  /**
   * One trigger of a table. `DhEnd` past the end.
   */
  enum DhStatus (*tables_trigger)(const struct DhTables *tables,
                                  size_t table,
                                  size_t trigger,
                                  struct DhDefinitionView *view);
  /**
   * One tag of a table. `DhEnd` past the end.
   */
  enum DhStatus (*tables_tag)(const struct DhTables *tables,
                              size_t table,
                              size_t tag,
                              struct DhText *name,
                              struct DhText *value);
  /**
   * Frees result columns.
   */
  void (*columns_free)(struct DhColumns *columns);
  /**
   * One result column. `DhEnd` past the end.
   */
  enum DhStatus (*columns_get)(const struct DhColumns *columns,
                               size_t index,
                               struct DhColumnView *view);
  /**
   * Says what the settings of the client connection are that change what a statement means.
   */
  enum DhStatus (*session_settings)(const struct DhSession *session,
                                    const struct DhOption *settings,
                                    size_t settings_len,
                                    struct DhBuffer *error);
  /**
   * Whether what the user has written is like a read that has been sent before. Never fails.
   */
  bool (*session_foresees)(const struct DhSession *session, struct DhText typed);
  /**
   * Sends what the query that begins will most likely become; whether it was sent. Never fails.
   */
  bool (*session_send_ahead)(const struct DhSession *session, struct DhText typed);
  /**
   * Cancels what was sent ahead, if it has not been asked for. Never fails.
   */
  void (*session_drop_ahead)(const struct DhSession *session);
  /**
   * Begins the server's part of the transaction now.
   */
  enum DhStatus (*session_begin)(const struct DhSession *session,
                                 struct DhInterrupt interrupt,
                                 struct DhBuffer *error);
  /**
   * Starts sending rows of an Arrow schema to a table.
   */
  enum DhStatus (*upload_start)(const struct DhSession *session,
                                struct DhText schema_path,
                                struct DhText table_name,
                                enum DhIngestMode mode,
                                struct DhText table_clauses,
                                bool transactional,
                                const struct ArrowSchema *schema,
                                const struct DhText *type_texts,
                                struct DhInterrupt interrupt,
                                struct DhUpload **upload,
                                struct DhBuffer *error);
  /**
   * Sends a batch: a struct array, which is taken over.
   */
  enum DhStatus (*upload_push)(const struct DhUpload *upload,
                               struct ArrowArray *array,
                               struct DhInterrupt interrupt,
                               struct DhBuffer *error);
  /**
   * Ends an upload and waits until the server has kept it; the number of rows goes to `rows`.
   */
  enum DhStatus (*upload_finish)(struct DhUpload *upload,
                                 struct DhInterrupt interrupt,
                                 uint64_t *rows,
                                 struct DhBuffer *error);
  /**
   * Frees an upload; one that was not finished is broken off.
   */
  void (*upload_free)(struct DhUpload *upload);
} DhApi;
