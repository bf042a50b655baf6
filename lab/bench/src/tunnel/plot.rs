//! Results as a picture (SVG): a bar for each contender and measure, the best one as long as the scale.

use std::fmt::Write as _;

use super::measures::Measure;
use crate::stats::Summary;

const BAR_HEIGHT: f64 = 14.0;
const GAP: f64 = 12.0;
const LABEL_WIDTH: f64 = 280.0;
const SCALE_WIDTH: f64 = 420.0;
const WIDTH: f64 = LABEL_WIDTH + SCALE_WIDTH + 200.0;
/// Fill colours: ours first, then the others in their order.
const COLOURS: [&str; 6] = ["#0a7d5a", "#8a99a8", "#b9c4ce", "#c9a66b", "#a98bb0", "#d0d0d0"];

/// A measure and what each contender reached in it, in the order of the names.
pub(super) type Row<'a> = (Measure, Vec<Option<&'a Summary>>);

/// Draws the rows of one group. The first name is ours.
pub(super) fn svg(title: &str, names: &[&str], rows: &[Row<'_>]) -> String {
    let mut body = String::new();
    let mut y = 52.0;
    text(&mut body, 8.0, 20.0, "bold 15px", title);
    for (index, name) in names.iter().enumerate() {
        let x = 8.0 + 150.0 * f64::from(u32::try_from(index).unwrap_or_default());
        rect(&mut body, x, 30.0, 10.0, colour(index));
        text(&mut body, x + 14.0, 40.0, "12px", name);
    }
    for (measure, values) in rows {
        let best = values.iter().flatten().map(|summary| goodness(*measure, summary.median));
        let best = best.fold(f64::MIN_POSITIVE, f64::max);
        y += GAP;
        text(&mut body, 8.0, y + BAR_HEIGHT - 3.0, "13px", measure.label.trim());
        for (index, summary) in values.iter().enumerate() {
            let Some(summary) = summary else { continue };
            let length = SCALE_WIDTH * goodness(*measure, summary.median) / best;
            rect(&mut body, LABEL_WIDTH, y, length.max(1.0), colour(index));
            let digits = measure.digits;
            let said =
                format!("{:.digits$} ({:.digits$}–{:.digits$})", summary.median, summary.min, summary.max);
            text(&mut body, LABEL_WIDTH + length + 6.0, y + BAR_HEIGHT - 3.0, "11px", &said);
            y += BAR_HEIGHT;
        }
    }
    let height = y + GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// How long the bar is: where less is better, the inverse.
fn goodness(measure: Measure, median: f64) -> f64 {
    if measure.more_is_better { median } else { 1.0 / median.max(f64::MIN_POSITIVE) }
}

fn colour(index: usize) -> &'static str {
    COLOURS.get(index).or(COLOURS.last()).copied().unwrap_or_default()
}

fn rect(body: &mut String, x: f64, y: f64, width: f64, fill: &str) {
    let height = BAR_HEIGHT - 2.0;
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.0}\" fill=\"{fill}\"/>"
    );
}

fn text(body: &mut String, x: f64, y: f64, font: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let (weight, size) = font.split_once(' ').unwrap_or(("normal", font));
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"{weight}\">{content}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::super::measures::MEASURES;
    use super::*;

    #[test]
    fn the_best_bar_is_the_longest_in_either_direction() {
        let measure = |key| MEASURES.into_iter().find(|measure| measure.key == key).unwrap();
        let [fast, slow] = [4.0, 2.0].map(|value| Summary::of(vec![value]));
        let rows = [
            (measure("tcp1"), vec![Some(&fast), Some(&slow)]),
            (measure("tcp1_cpu"), vec![Some(&slow), Some(&fast), None]),
        ];
        let drawn = svg("a < b", &["ours", "theirs"], &rows);
        assert!(drawn.contains("a &lt; b"), "{drawn}");
        let full = format!("width=\"{SCALE_WIDTH:.1}\"");
        let half = format!("width=\"{:.1}\"", SCALE_WIDTH / 2.0);
        assert_eq!((drawn.matches(&full).count(), drawn.matches(&half).count()), (2, 2), "{drawn}");
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    }
}
