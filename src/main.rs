//! The command-line tool: an outside user of the library's public interface.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
