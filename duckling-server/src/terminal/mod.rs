//! `duckling sql`: statements from arguments, a script or a prompt; results on standard output.

mod command;
mod engine;
mod interrupts;
mod local;
mod output;
mod place;
mod progress;
mod prompt;
mod script;
mod table;
mod text;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use duckherder_client::{AddressError, ClientOptions};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::runtime::Runtime;

use self::command::Command;
use self::engine::{Engine, Summary};
use self::interrupts::Interrupts;
use self::local::Local;
use self::output::{Format, PrintError, Printer};
use self::progress::Progress;
use self::prompt::{Prompt, Typed};
use self::script::{Part, Script, ScriptError};
use self::text::TextDatabase;

/// How long a statement may take to say how far it is.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// What a shell expects of a program that a closed pipe has ended.
const EXIT_CODE_PIPE: u8 = 141;

/// Arguments of `duckling sql`.
#[derive(Args)]
#[command(after_help = "\
Without SQL and --file, statements are read from standard input; on a terminal, there is a prompt, \
whose \\? lists its commands. The first statement that fails ends a script.

Exit status: 0 if all went well, 1 if a statement or the connection failed, 2 for wrong arguments, 130 after Ctrl-C.

The prompt remembers statements in ~/.duckling_history, or where DUCKLING_HISTORY says.")]
pub struct SqlArgs {
    /// Statements to run, each argument one or more.
    #[arg(value_name = "SQL")]
    sql: Vec<String>,
    /// The duckling; the port may be left out.
    #[arg(long, default_value = "localhost:8815", value_name = "HOST:PORT")]
    server: String,
    /// Use no duckling: open a database file, or `:memory:`, in this process.
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    database: Option<String>,
    /// Load an extension, signed or not, into that database.
    #[arg(long, value_name = "FILE", requires = "database")]
    load_extension: Vec<String>,
    /// Run the statements in a file; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// How to print results.
    #[arg(long, value_enum, default_value = "box")]
    format: Format,
    /// How many rows a box shows at most, half of them from the end.
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    rows: u32,
    /// Print how long each statement takes.
    #[arg(long)]
    timing: bool,
    /// Seconds that connecting may take.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    connect_timeout: u64,
}

/// Why the program ends before its input does.
enum Stop {
    /// A statement failed, and was reported.
    Failed,
    /// Ctrl-C, in a script.
    Interrupted,
    /// Nobody reads the output.
    Pipe,
    /// `\q`
    Quit,
}

/// Runs `duckling sql`.
pub fn run(args: SqlArgs) -> ExitCode {
    let interactive = args.sql.is_empty() && args.file.is_none() && io::stdin().is_terminal();
    let outcome = Terminal::open(&args, interactive).and_then(|mut terminal| {
        let outcome = terminal.run(&args);
        terminal.close();
        outcome
    });
    match outcome {
        Ok(()) | Err(Stop::Quit) => ExitCode::SUCCESS,
        Err(Stop::Failed) => ExitCode::FAILURE,
        Err(Stop::Interrupted) => ExitCode::from(interrupts::EXIT_CODE),
        Err(Stop::Pipe) => ExitCode::from(EXIT_CODE_PIPE),
    }
}

struct Terminal {
    runtime: Runtime,
    engine: Engine,
    text: TextDatabase,
    interrupts: Interrupts,
    interactive: bool,
    format: Format,
    rows_max: usize,
    timing: bool,
    /// Where results go, if not to standard output.
    file: Option<BufWriter<File>>,
}

impl Terminal {
    fn open(args: &SqlArgs, interactive: bool) -> Result<Self, Stop> {
        let runtime = Runtime::new().map_err(|error| failed(&format!("cannot start the network runtime: {error}")))?;
        let entered = runtime.enter();
        let interrupts =
            Interrupts::listen(!interactive).map_err(|error| failed(&format!("cannot listen to signals: {error}")))?;
        drop(entered);
        let mut text = TextDatabase::open().map_err(|error| failed(&error.to_string()))?;
        let engine = match &args.database {
            Some(path) => Local::open(path, &args.load_extension).map(Engine::Local),
            None => {
                let server: ClientOptions = args
                    .server
                    .parse()
                    .map_err(|error: AddressError| failed(&error.to_string()))?;
                let options = server
                    .connect_timeout(Duration::from_secs(args.connect_timeout))
                    .client_name(concat!("duckling sql ", env!("CARGO_PKG_VERSION")));
                let connected = runtime.block_on(Engine::connect(options, text.time_zone()));
                connected.map_err(|error| error.to_remote_error())
            }
        };
        Ok(Self {
            engine: engine.map_err(|error| failed(&error.to_string()))?,
            runtime,
            text,
            interrupts,
            interactive,
            format: args.format,
            rows_max: args.rows as usize,
            timing: args.timing,
            file: None,
        })
    }

    fn run(&mut self, args: &SqlArgs) -> Result<(), Stop> {
        if self.interactive {
            return self.run_prompt();
        }
        if !args.sql.is_empty() {
            return args.sql.iter().try_for_each(|sql| self.run_script(sql.as_bytes()));
        }
        match args.file.as_deref().filter(|path| path.as_os_str() != "-") {
            None => self.run_script(io::stdin().lock()),
            Some(path) => {
                let file = File::open(path);
                let file = file.map_err(|error| failed(&format!("cannot open {}: {error}", path.display())))?;
                self.run_script(BufReader::new(file))
            }
        }
    }

    fn close(self) {
        self.runtime.block_on(self.engine.close());
    }

    fn run_prompt(&mut self) -> Result<(), Stop> {
        let opened = self.text.splitter().map_err(|error| failed(&error.to_string()))?;
        let mut prompt = Prompt::open(opened).map_err(|error| failed(&format!("no prompt: {error}")))?;
        say(&format!("{}. \\? for help.", self.engine.description()))?;
        let label = format!("{}> ", self.engine.database_name());
        loop {
            match prompt.read(&label) {
                Ok(Typed::Text(text)) => match self.run_script(text.as_bytes()) {
                    // They have been reported, and there is the next try.
                    Ok(()) | Err(Stop::Failed | Stop::Interrupted) => {}
                    Err(stop) => return Err(stop),
                },
                Ok(Typed::Nothing) => {}
                Ok(Typed::End) => return Ok(()),
                Err(error) => return Err(failed(&format!("the terminal: {error}"))),
            }
        }
    }

    fn run_script(&mut self, input: impl BufRead) -> Result<(), Stop> {
        let splitter = self.text.splitter().map_err(|error| failed(&error.to_string()))?;
        let mut script = Script::new(input, splitter);
        let broken = |error: ScriptError| failed(&error.to_string());
        while let Some(part) = script.next_part().map_err(broken)? {
            match part {
                Part::Statement(sql) => self.run_statement(&sql)?,
                Part::Command(line) => self.obey(Command::parse(&line).map_err(|problem| failed(&problem))?)?,
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Run(sql) => self.run_statement(&sql)?,
            Command::Format(Some(format)) => self.format = format,
            Command::Format(None) => say(&format!("{:?}", self.format).to_lowercase())?,
            Command::Rows(Some(rows)) => self.rows_max = rows,
            Command::Rows(None) => say(&self.rows_max.to_string())?,
            Command::Timing(on) => {
                self.timing = on.unwrap_or(!self.timing);
                say(if self.timing { "timing is on" } else { "timing is off" })?;
            }
            Command::Output(path) => {
                self.file = match path {
                    None => None,
                    Some(path) => {
                        let file = File::create(&path);
                        Some(BufWriter::new(
                            file.map_err(|error| failed(&format!("cannot write {path}: {error}")))?,
                        ))
                    }
                }
            }
            Command::Help => say(command::HELP.trim_end())?,
            Command::Quit => return Err(Stop::Quit),
        }
        Ok(())
    }

    /// Runs one statement, and prints its result or its error.
    fn run_statement(&mut self, sql: &str) -> Result<(), Stop> {
        if self.format == Format::Arrow && self.file.is_none() && io::stdout().is_terminal() {
            return Err(failed(
                "Arrow is not for a terminal: choose another \\format, or a file with \\o FILE",
            ));
        }
        let started = Instant::now();
        self.interrupts.begin();
        let outcome = self.stream(sql);
        self.interrupts.end();
        match outcome {
            Ok(summary) => {
                if self.timing {
                    let server = summary.server_elapsed;
                    let server = server.map(|elapsed| format!(", {} on the server", seconds(elapsed)));
                    report(&format!("{}{}", seconds(started.elapsed()), server.unwrap_or_default()));
                }
                if summary.kind == duckherder_client::ResultKind::Nothing && mentions_time_zone(sql) {
                    self.follow_time_zone();
                }
                Ok(())
            }
            Err(Failure::Print(PrintError::Write(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Stop::Pipe)
            }
            Err(Failure::Print(PrintError::Write(error))) => Err(failed(&format!("cannot write the result: {error}"))),
            Err(Failure::Statement(error) | Failure::Print(PrintError::Values(error))) => {
                report(&place::in_statement(&error, sql));
                self.recover(&error);
                if error.kind == ExceptionType::Interrupt && !self.interactive {
                    return Err(Stop::Interrupted);
                }
                Err(Stop::Failed)
            }
        }
    }

    fn stream(&mut self, sql: &str) -> Result<Summary, Failure> {
        let Self {
            runtime,
            engine,
            text,
            interrupts,
            format,
            rows_max,
            file,
            ..
        } = self;
        let mut stdout = BufWriter::new(io::stdout().lock());
        let to_screen = file.is_none() && io::stdout().is_terminal();
        let out: &mut dyn Write = match file {
            Some(file) => file,
            None => &mut stdout,
        };
        let width = to_screen
            .then(|| console::Term::stdout().size_checked())
            .flatten()
            .map(|(_, columns)| usize::from(columns));
        runtime.block_on(async {
            let mut progress = Progress::begin(io::stderr().is_terminal());
            let mut answer = tokio::select! {
                () = interrupts.next() => return Err(interrupted().into()),
                answer = engine.run(sql) => answer?,
            };
            let mut printer = Printer::new(*format, answer.schema(), *rows_max, text, out)?;
            let mut cancelled = false;
            loop {
                let batch = tokio::select! {
                    () = interrupts.next() => {
                        // Asked first, so that its outcome is known; the second time it is left alone.
                        if cancelled {
                            return Err(interrupted().into());
                        }
                        cancelled = true;
                        answer.cancel().await?;
                        continue;
                    }
                    () = progress.look() => {
                        if let Ok(fraction) = tokio::time::timeout(PROGRESS_TIMEOUT, answer.progress()).await {
                            progress.fraction(fraction);
                        }
                        continue;
                    }
                    batch = answer.next() => batch?,
                };
                let Some(batch) = batch else { break };
                progress.rows(batch.num_rows() as u64);
                if to_screen && *format != Format::Box {
                    progress.clear();
                }
                printer.rows(batch)?;
            }
            progress.clear();
            let summary = answer
                .summary()
                .ok_or_else(|| RemoteError::new(ExceptionType::Io, "the result ended without saying what it is"))?;
            printer.finish(summary, width)?;
            Ok(summary)
        })
    }

    /// A session that is gone is replaced: its statement has failed, the next one need not.
    fn recover(&mut self, error: &RemoteError) {
        match self.runtime.block_on(self.engine.recover(error)) {
            Ok(false) => {}
            Ok(true) => report(
                "The session was lost, and with it its transaction, settings and temporary tables. A new one is open.",
            ),
            Err(error) => report(&error.to_string()),
        }
    }

    /// Times are written here, so the session's time zone must be known here.
    fn follow_time_zone(&mut self) {
        let zone = self.runtime.block_on(self.engine.time_zone());
        let followed = zone.and_then(|zone| zone.map_or(Ok(()), |zone| self.text.set_time_zone(&zone)));
        if let Err(error) = followed {
            report(&format!("times with time zone are printed as before: {error}"));
        }
    }
}

/// Why a statement's result is not there.
#[derive(Debug)]
enum Failure {
    Statement(RemoteError),
    Print(PrintError),
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        Self::Statement(error)
    }
}

impl From<PrintError> for Failure {
    fn from(error: PrintError) -> Self {
        Self::Print(error)
    }
}

fn interrupted() -> RemoteError {
    RemoteError::new(ExceptionType::Interrupt, "Interrupted!")
}

/// Writes a line to standard error. If nobody reads that, nobody can be told.
fn report(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Reports what is wrong.
fn failed(problem: &str) -> Stop {
    report(problem);
    Stop::Failed
}

fn say(text: &str) -> Result<(), Stop> {
    writeln!(io::stdout(), "{text}").map_err(|_| Stop::Pipe)
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.3} s", elapsed.as_secs_f64())
}

/// Whether a statement without a result may have changed the time zone: asking costs a round trip.
fn mentions_time_zone(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    sql.contains("zone") || sql.contains("reset")
}
