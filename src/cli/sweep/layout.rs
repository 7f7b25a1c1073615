//! The table as papers have it: methods down, benchmarks across, a block for each budget.

use std::fmt::Write;

use super::{
    row::Row,
    table::{RULE, Table},
};

/// A cell, and whether its value is the best of its block.
#[derive(Clone, Default)]
struct Cell {
    text: String,
    best: bool,
}

/// A line of a block: a method, and a cell for each benchmark and the average.
struct Line {
    name: String,
    cells: Vec<Cell>,
}

/// The methods at a budget.
struct Block {
    title: String,
    lines: Vec<Line>,
}

/// The table, ready to be written in any form.
pub(super) struct Layout {
    model: String,
    heads: Vec<String>,
    blocks: Vec<Block>,
    /// Sentences below the table.
    notes: Vec<String>,
}

impl Layout {
    pub(super) fn new(table: &Table) -> Self {
        let mut benchmarks: Vec<&str> = Vec::new();
        let mut budgets: Vec<Option<usize>> = Vec::new();
        for row in &table.rows {
            if !benchmarks.contains(&row.benchmark.as_str()) {
                benchmarks.push(&row.benchmark);
            }
            if !budgets.contains(&row.tokens) {
                budgets.push(row.tokens);
            }
        }
        // No budget comes first, then the largest.
        budgets.sort_by_key(|tokens| std::cmp::Reverse(tokens.unwrap_or(usize::MAX)));
        let head = |name: &&str| {
            let row = table.rows.iter().find(|row| row.benchmark == **name);
            row.map_or_else(String::new, |row| format!("{name} ({}, n {})", row.metric.replace('_', " "), row.n))
        };
        let mut heads: Vec<String> = benchmarks.iter().map(head).collect();
        if !table.averages.is_empty() {
            heads.push(format!("average (% of unpruned, {} benchmarks)", benchmarks.len()));
        }
        let blocks = budgets.iter().map(|&tokens| block(table, &benchmarks, tokens)).collect();
        let model = table.rows.first().map(|row| row.model.clone()).unwrap_or_default();
        Self { model, heads, blocks, notes: notes(table) }
    }

    /// The table for a terminal.
    pub(super) fn text(&self) -> String {
        let names = self.blocks.iter().flat_map(|block| &block.lines).map(|line| line.name.chars().count() + 2);
        let first = names.chain(self.blocks.iter().map(|block| block.title.chars().count())).max().unwrap_or(0);
        let width = |i: usize| {
            let cells =
                self.blocks.iter().flat_map(|block| &block.lines).map(|line| line.cells[i].text.chars().count() + 1);
            cells.chain([self.heads[i].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", format!("{name:<first$}{cells}").trim_end());
        };
        line(&self.model, &mut self.heads.iter().cloned());
        for block in &self.blocks {
            line(&block.title, &mut std::iter::empty());
            for Line { name, cells } in &block.lines {
                let mark = |cell: &Cell| format!("{}{}", cell.text, if cell.best { "*" } else { " " });
                line(&format!("  {name}"), &mut cells.iter().map(mark));
            }
        }
        text += &self.notes.join("\n");
        if self.blocks.iter().flat_map(|block| &block.lines).flat_map(|line| &line.cells).any(|cell| cell.best) {
            text += "\n*: the best at its budget";
        }
        text.trim().to_owned()
    }

    /// The table in Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text =
            format!("| {} | {} |\n|---|{}\n", self.model, self.heads.join(" | "), "---:|".repeat(self.heads.len()));
        for block in &self.blocks {
            let _ = writeln!(text, "| *{}* |{}", block.title, " |".repeat(self.heads.len()));
            for Line { name, cells } in &block.lines {
                let bold = |cell: &Cell| if cell.best { format!("**{}**", cell.text) } else { cell.text.clone() };
                let _ = writeln!(text, "| {name} | {} |", cells.iter().map(bold).collect::<Vec<_>>().join(" | "));
            }
        }
        text + "\n" + &self.notes.join("  \n")
    }

    /// The table in LaTeX, for the package `booktabs`.
    pub(super) fn latex(&self) -> String {
        let columns = "r".repeat(self.heads.len());
        let heads = self.heads.iter().map(|head| escape(head)).collect::<Vec<_>>().join(" & ");
        let mut text = format!("\\begin{{tabular}}{{l{columns}}}\n\\toprule\n{} & {heads} \\\\\n", escape(&self.model));
        for block in &self.blocks {
            let span = self.heads.len() + 1;
            let _ =
                writeln!(text, "\\midrule\n\\multicolumn{{{span}}}{{l}}{{\\emph{{{}}}}} \\\\", escape(&block.title));
            for Line { name, cells } in &block.lines {
                let bold = |cell: &Cell| match cell.best {
                    true => format!("\\textbf{{{}}}", escape(&cell.text)),
                    false => escape(&cell.text),
                };
                let cells = cells.iter().map(bold).collect::<Vec<_>>().join(" & ");
                let _ = writeln!(text, "{} & {cells} \\\\", escape(name));
            }
        }
        text += "\\bottomrule\n\\end{tabular}\n";
        text + &self.notes.iter().map(|note| format!("% {note}")).collect::<Vec<_>>().join("\n")
    }
}

/// The characters that LaTeX reads as commands, spelt out.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\textbackslash ");
    let text = ['%', '&', '_', '#', '$', '{', '}'].iter().fold(text, |text, c| text.replace(*c, &format!("\\{c}")));
    text.replace('±', "$\\pm$").replace('–', "--")
}

/// The lines of a budget: each method, and below it what papers report where they do.
fn block(table: &Table, benchmarks: &[&str], tokens: Option<usize>) -> Block {
    let title = tokens.map_or_else(|| "all tokens".to_owned(), |tokens| format!("{tokens} tokens"));
    let of_budget: Vec<&Row> = table.rows.iter().filter(|row| row.tokens == tokens).collect();
    let mut methods: Vec<&str> = Vec::new();
    for row in &of_budget {
        if !methods.contains(&row.method.as_str()) {
            methods.push(&row.method);
        }
    }
    let find = |method: &str, benchmark: &str| {
        of_budget.iter().find(|row| row.method == method && row.benchmark == benchmark).copied()
    };
    let average = |method: &str| {
        let found = table.averages.iter().find(|average| average.method == method && average.tokens == tokens);
        found.and_then(|average| average.percent)
    };
    let best: Vec<Option<f64>> = benchmarks
        .iter()
        .map(|benchmark| best_of(methods.iter().filter_map(|method| find(method, benchmark)?.score).collect()))
        .collect();
    let best_average = best_of(methods.iter().filter_map(|method| average(method)).collect());
    let mut lines = Vec::new();
    for method in &methods {
        let rows: Vec<Option<&Row>> = benchmarks.iter().map(|benchmark| find(method, benchmark)).collect();
        let mut cells: Vec<Cell> = rows
            .iter()
            .zip(&best)
            .map(|(row, best)| Cell {
                text: row.map_or_else(String::new, score),
                best: best.is_some() && row.and_then(|row| row.score) == *best,
            })
            .collect();
        if !table.averages.is_empty() {
            let text =
                average(method).map_or_else(|| missing(table, method, tokens), |percent| format!("{percent:.1}"));
            cells.push(Cell { text, best: best_average.is_some() && average(method) == best_average });
        }
        let seeds = rows.iter().flatten().map(|row| row.seeds).max().unwrap_or(1);
        let name = if seeds > 1 { format!("{method}, {seeds} seeds") } else { (*method).to_owned() };
        lines.push(Line { name, cells });
        if rows.iter().flatten().any(|row| row.published.is_some()) {
            let figure = |row: &Option<&Row>| row.and_then(|row| row.published).map(|score| format!("{score:.2}"));
            let cell = |row| Cell { text: figure(row).unwrap_or_default(), best: false };
            let mut cells: Vec<Cell> = rows.iter().map(cell).collect();
            cells.resize(cells.len() + usize::from(!table.averages.is_empty()), Cell::default());
            lines.push(Line { name: "  published".to_owned(), cells });
        }
    }
    Block { title, lines }
}

/// The largest value; `None` where all are equal.
fn best_of(values: Vec<f64>) -> Option<f64> {
    let best = values.iter().copied().max_by(f64::total_cmp)?;
    values.iter().any(|value| *value < best).then_some(best)
}

/// A score with its standard error.
fn score(row: &Row) -> String {
    let error = row.standard_error.map_or_else(String::new, |error| format!(" ± {error:.2}"));
    row.score.map_or_else(|| "–".to_owned(), |score| format!("{score:.2}{error}"))
}

/// The reason why a method has no average.
fn missing(table: &Table, method: &str, tokens: Option<usize>) -> String {
    let found = table.averages.iter().find(|average| average.method == method && average.tokens == tokens);
    found.map_or_else(String::new, |average| format!("{} of {}", average.with_percent, average.benchmarks))
}

fn notes(table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    let any = |of: &dyn Fn(&Row) -> bool| table.rows.iter().any(of);
    if any(&|row| row.standard_error.is_some()) {
        notes.push("±: the standard error over the questions".to_owned());
    }
    if any(&|row| row.seeds > 1) {
        notes.push("Scores of several seeds are their mean; there, ± is the standard error over the seeds".to_owned());
    }
    if !table.averages.is_empty() {
        notes.push(RULE.to_owned());
    }
    if table.averages.iter().any(|average| average.percent.is_none()) {
        notes.push("Averages without a figure: so many benchmarks have a percentage".to_owned());
    }
    let mut sources: Vec<&str> = table.rows.iter().filter_map(|row| row.source.as_deref()).collect();
    sources.sort_unstable();
    sources.dedup();
    if !sources.is_empty() {
        notes.push(format!("published: {}", sources.join("; ")));
    }
    notes.extend(table.reasons());
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn row(benchmark: &str, method: &str, tokens: Option<usize>, score: f64, seed: u64) -> Row {
        from_value(json!({
            "benchmark": benchmark, "method": method, "tokens": tokens, "metric": "f1_mean", "score": score, "n": 9,
            "standard_error": 1.5, "model": "llava_7b", "seed": seed, "run": format!("{benchmark}-{method}-{tokens:?}-{seed}"),
            "published": (method == "trim").then_some(61.5), "source": (method == "trim").then_some("TRIM"),
        }))
        .unwrap()
    }

    fn layout() -> Layout {
        let rows = ["pope", "gqa"].into_iter().flat_map(|benchmark| {
            [
                row(benchmark, "none", None, 80.0, 0),
                row(benchmark, "trim", Some(64), 76.0, 0),
                row(benchmark, "random", Some(64), 60.0, 0),
                row(benchmark, "random", Some(64), 64.0, 1),
                row(benchmark, "trim", Some(29), 70.0, 0),
            ]
        });
        Layout::new(&Table::new(rows.collect(), Vec::new()))
    }

    #[test]
    fn a_table_has_a_block_for_each_budget() {
        let text = layout().text();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["none", "80.00", "±", "1.50", "80.00", "±", "1.50", "100.0"]);
        assert_eq!(lines[3], ["64", "tokens"]);
        assert_eq!(lines[4], ["trim", "76.00", "±", "1.50*", "76.00", "±", "1.50*", "95.0*"]);
        assert_eq!(lines[5], ["published", "61.50", "61.50"]);
        assert_eq!(lines[6], ["random,", "2", "seeds", "62.00", "±", "2.00", "62.00", "±", "2.00", "77.5"]);
        assert_eq!(lines[8], ["trim", "70.00", "±", "1.50", "70.00", "±", "1.50", "87.5"]);
        assert!(text.contains("published: TRIM"), "{text}");
    }

    #[test]
    fn the_best_is_bold_where_there_is_bold() {
        assert!(layout().markdown().contains("| trim | **76.00 ± 1.50** | **76.00 ± 1.50** | **95.0** |"));
        let latex = layout().latex();
        assert!(latex.contains("trim & \\textbf{76.00 $\\pm$ 1.50}"), "{latex}");
        assert!(latex.contains("llava\\_7b & pope (f1 mean, n 9)"), "{latex}");
    }
}
