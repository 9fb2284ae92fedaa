//! Tables as kubectl prints them.

/// The blanks between two columns.
const GAP: usize = 3;

/// One object's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<(String, String)>);

impl Row {
    /// What stands under `heading`; empty where nothing does.
    pub fn cell(&self, heading: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == heading)
            .map_or("", |(_, cell)| cell)
    }

    /// The headings, in order.
    pub fn headings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(heading, _)| heading.as_str())
    }
}

/// The rows of all tables in `text`. A cell may be blank, so columns are told by where their headings begin.
pub fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut headings = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            headings.clear();
        } else if headings.is_empty() {
            headings = columns(line);
        } else {
            rows.push(row(&headings, line));
        }
    }
    rows
}

/// The headings and where they begin, counted in characters. Two blanks or more part them.
fn columns(line: &str) -> Vec<(usize, String)> {
    let characters: Vec<char> = line.chars().collect();
    let blank = |at: Option<usize>| {
        at.and_then(|at| characters.get(at))
            .is_none_or(|c| *c == ' ')
    };
    let begins =
        |&at: &usize| !blank(Some(at)) && blank(at.checked_sub(1)) && blank(at.checked_sub(2));
    let mut found: Vec<(usize, String)> = Vec::new();
    let starts: Vec<usize> = (0..characters.len()).filter(begins).collect();
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(characters.len());
        let heading: String = characters[start..end].iter().collect();
        found.push((start, heading.trim().to_owned()));
    }
    found
}

fn row(headings: &[(usize, String)], line: &str) -> Row {
    let characters: Vec<char> = line.chars().collect();
    let cells = headings
        .iter()
        .enumerate()
        .map(|(number, (start, heading))| {
            let end = headings.get(number + 1).map_or(usize::MAX, |(end, _)| *end);
            let cell: String = characters
                .iter()
                .skip(*start)
                .take(end.saturating_sub(*start))
                .collect();
            (heading.clone(), cell.trim().to_owned())
        });
    Row(cells.collect())
}

/// The table of a watch, line by line. kubectl does not know the widths in advance: a column is as wide as the widest cell so far,
/// three blanks part a cell from the next.
#[derive(Debug, Default)]
pub struct Growing {
    headings: Vec<String>,
    widths: Vec<usize>,
}

impl Growing {
    /// The next line as a row; nothing for the headings.
    pub fn row(&mut self, line: &str) -> Option<Row> {
        if self.headings.is_empty() {
            self.headings = columns(line).into_iter().map(|(_, name)| name).collect();
            self.widths = self
                .headings
                .iter()
                .map(|name| name.chars().count())
                .collect();
            return None;
        }
        let mut rest: Vec<char> = line.chars().collect();
        let mut cells = Vec::new();
        for (heading, width) in self.headings.iter().zip(&mut self.widths) {
            let end = rest
                .windows(GAP)
                .position(|gap| gap == [' '; GAP])
                .unwrap_or(rest.len());
            *width = end.max(*width);
            cells.push((heading.clone(), rest[..end].iter().collect()));
            rest.drain(..(*width + GAP).min(rest.len()));
        }
        Some(Row(cells))
    }
}

#[cfg(test)]
mod tests {
    use super::{Growing, rows};

    #[test]
    fn blank_cells_and_several_tables_are_told_apart() {
        let text = "\
NAMESPACE   NAME                                   HEALTH    ALARMS        READY     AGE
smallapp    tenantobservability.campanile.dev/s                            Applied   3s
vsu         tenantobservability.campanile.dev/v    Healthy   0/16 firing   Applied   3s

NAMESPACE   NAME                        TENANT   ALARMS   FIRING
vsu         alarmset.campanile.dev/g    vsu      16       0
";
        let rows = rows(text);
        assert_eq!(rows.len(), 3);
        assert_eq!(
            (rows[0].cell("HEALTH"), rows[0].cell("READY")),
            ("", "Applied")
        );
        assert_eq!(
            (rows[1].cell("ALARMS"), rows[1].cell("AGE")),
            ("0/16 firing", "3s")
        );
        assert_eq!(
            (rows[2].cell("TENANT"), rows[2].cell("FIRING")),
            ("vsu", "0")
        );
        assert_eq!(rows[2].cell("HEALTH"), "");
    }

    #[test]
    fn columns_of_a_watch_grow() {
        let lines = [
            "NAMESPACE   NAME   HEALTH   ALARMS   READY   AGE",
            "smallapp    smallapp                             0s",
            "smallapp    smallapp   Unknown            Applying   0s",
            "vsu         vsu        Healthy   0/16 firing   Applied    1s",
        ];
        let mut growing = Growing::default();
        let rows: Vec<_> = lines.iter().filter_map(|line| growing.row(line)).collect();
        let cells = |at: usize| {
            ["NAME", "HEALTH", "ALARMS", "READY", "AGE"].map(|heading| rows[at].cell(heading))
        };
        assert_eq!(rows.len(), 3);
        assert_eq!(cells(0), ["smallapp", "", "", "", "0s"]);
        assert_eq!(cells(1), ["smallapp", "Unknown", "", "Applying", "0s"]);
        assert_eq!(cells(2), ["vsu", "Healthy", "0/16 firing", "Applied", "1s"]);
    }
}
