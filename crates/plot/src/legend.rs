//! Where a panel's legend stands.

use crate::draw::{FONT_SIZE, PANEL, place};
use crate::figure::{Layer, Panel};
use plotters::prelude::SeriesLabelPosition;
use std::ops::Range;

/// What margins, title and labels leave of a panel for its curves, pixels.
pub(crate) const PLOT: (f64, f64) = (PANEL.0 as f64 - 94.0, PANEL.1 as f64 - 90.0);

/// Mean width of a letter over the size of the font.
pub(crate) const LETTER: f64 = 0.6;

/// Pixels of a legend beside its letters, and of each of its lines.
const AROUND: (f64, f64) = (56.0, 20.0);
const LINE: f64 = 19.0;

/// Points at which the piece of a curve between two others is looked at.
const BETWEEN: usize = 12;

/// Steps in which an axis is lengthened to make room.
const LENGTHENINGS: u32 = 20;

/// A corner of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corner {
    right: bool,
    top: bool,
}

impl Corner {
    /// In the order of preference.
    const ALL: [Self; 4] = [
        Self { right: true, top: true },
        Self { right: false, top: true },
        Self { right: false, top: false },
        Self { right: true, top: false },
    ];

    pub fn position(self) -> SeriesLabelPosition {
        match (self.right, self.top) {
            (true, true) => SeriesLabelPosition::UpperRight,
            (false, true) => SeriesLabelPosition::UpperLeft,
            (false, false) => SeriesLabelPosition::LowerLeft,
            (true, false) => SeriesLabelPosition::LowerRight,
        }
    }

    /// Whether a place, in shares of the panel, is under something of this size in the corner.
    fn covers(self, size: (f64, f64), at: (f64, f64)) -> bool {
        let across = if self.right { 1.0 - at.0 } else { at.0 };
        let up = if self.top { 1.0 - at.1 } else { at.1 };
        // What only touches its edge, but for rounding, is beside it.
        across < size.0 - 1e-9 && up < size.1 - 1e-9
    }
}

/// A legend's corner, and the span of the vertical axis with room for it: where no corner is free of curves, the span is
/// lengthened upwards until one is.
pub(crate) fn legend_at(panel: &Panel, x: &Range<f64>, y: &Range<f64>) -> (Corner, Range<f64>) {
    let labels: Vec<&String> = panel.layers.iter().filter_map(label_of).collect();
    if labels.is_empty() {
        return (Corner::ALL[0], y.clone());
    }
    let letters = labels.iter().map(|label| shown(label).chars().count()).max().unwrap_or(0) as f64;
    let size = (
        (AROUND.0 + LETTER * f64::from(FONT_SIZE - 2) * letters) / PLOT.0,
        (AROUND.1 + LINE * labels.len() as f64) / PLOT.1,
    );
    let within = |value: f64, span: &Range<f64>| (span.start..=span.end).contains(&value);
    let points: Vec<(f64, f64)> = panel
        .layers
        .iter()
        .flat_map(|layer| drawn(panel, layer))
        .filter(|at| within(at.0, x))
        .collect();
    let covered = |corner: Corner, y: &Range<f64>| {
        let seen = points.iter().filter(|at| within(at.1, y));
        let places = seen.map(|at| (share(at.0, x), share(at.1, y)));
        places.filter(|at| corner.covers(size, *at)).count()
    };
    let emptiest = |y: &Range<f64>| {
        let first = (covered(Corner::ALL[0], y), Corner::ALL[0]);
        let others = Corner::ALL[1..].iter().map(|corner| (covered(*corner, y), *corner));
        others.fold(first, |best, other| if other.0 < best.0 { other } else { best })
    };
    // What the legend needs of the height at most, where all of it stands above the curves.
    let most = size.1.min(0.5);
    let lengthened = (0..=LENGTHENINGS).map(|k| {
        let room = most * f64::from(k) / f64::from(LENGTHENINGS);
        let longer = y.start..y.end + (y.end - y.start) * room / (1.0 - room);
        let (crowd, corner) = emptiest(&longer);
        (crowd, corner, longer)
    });
    // The first that is free, or of equals, is the least long.
    let free = lengthened.clone().find(|(crowd, ..)| *crowd == 0);
    let least = free.or_else(|| lengthened.min_by_key(|(crowd, ..)| *crowd));
    least.map_or((Corner::ALL[0], y.clone()), |(_, corner, longer)| (corner, longer))
}

fn share(value: f64, span: &Range<f64>) -> f64 {
    (value - span.start) / (span.end - span.start)
}

/// Letters of a label at most.
const MOST_LETTERS: usize = 40;

/// A text as it is drawn: a long one without its middle, and without what no figure can hold.
pub(crate) fn shown(text: &str) -> String {
    shortened(text, MOST_LETTERS)
}

/// The same of so many letters at most.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> =
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if letters.len() <= most {
        return letters.into_iter().collect();
    }
    let half = (most - 1) / 2;
    let ends = [&letters[..=half], &['…'], &letters[letters.len() - half..]];
    ends.concat().into_iter().collect()
}

pub(crate) fn label_of(layer: &Layer) -> Option<&String> {
    match layer {
        Layer::Line { label, .. } | Layer::Points { label, .. } | Layer::Band { label, .. } => {
            label.as_ref()
        }
    }
}

/// Places that a layer goes through.
fn drawn(panel: &Panel, layer: &Layer) -> Vec<(f64, f64)> {
    let placed = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        points.iter().filter_map(|point| place(panel, *point)).collect()
    };
    let along = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        let pieces = points.windows(2).flat_map(|ends| {
            let (from, to) = (ends[0], ends[1]);
            (0..BETWEEN).map(move |k| {
                let part = k as f64 / BETWEEN as f64;
                (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
            })
        });
        pieces.chain(points.last().copied()).collect()
    };
    match layer {
        Layer::Line { points, .. } => along(placed(points)),
        Layer::Points { points, .. } => placed(points),
        Layer::Band { points, .. } => {
            let edge = |of: fn(&(f64, f64, f64)) -> (f64, f64)| -> Vec<(f64, f64)> {
                along(placed(&points.iter().map(of).collect::<Vec<_>>()))
            };
            [edge(|point| (point.0, point.1)), edge(|point| (point.0, point.2))].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Axis, Color};

    fn panel(curves: &[&[(f64, f64)]]) -> Panel {
        let layers = curves.iter().map(|points| {
            Layer::line(points.to_vec(), Color::Series(0), "a curve with a name of some length")
        });
        Panel {
            title: "title".into(),
            x: Axis::linear("x"),
            y: Axis::linear("y"),
            layers: layers.collect(),
        }
    }

    #[test]
    fn a_legend_stands_where_no_curve_is() {
        let falling = panel(&[&[(0.0, 1.0), (1.0, 0.0)]]);
        let (corner, y) = legend_at(&falling, &(0.0..1.0), &(0.0..1.0));
        assert_eq!((corner, y), (Corner { right: true, top: true }, 0.0..1.0));
        let rising = panel(&[&[(0.0, 0.0), (1.0, 1.0)]]);
        let (corner, y) = legend_at(&rising, &(0.0..1.0), &(0.0..1.0));
        assert_eq!((corner, y), (Corner { right: false, top: true }, 0.0..1.0));
    }

    #[test]
    fn a_panel_is_made_higher_by_what_the_legend_needs() {
        let room = |panel: &Panel| {
            let (_, y) = legend_at(panel, &(0.0..1.0), &(0.0..1.0));
            assert_eq!(y.start, 0.0);
            (y.end - 1.0) / y.end
        };
        // Both diagonals go through every corner, and no point of them but the ends lies in one.
        let crossed = panel(&[&[(0.0, 1.0), (1.0, 0.0)], &[(0.0, 0.0), (1.0, 1.0)]]);
        let covers = |lines: f64| (AROUND.1 + lines * LINE) / PLOT.1;
        assert!((room(&crossed) - covers(2.0)).abs() < 1e-12, "{}", room(&crossed));
        // A line that only touches the legend from below leaves it less to make room for.
        let level = 0.84;
        let touched = panel(&[
            &[(0.0, 1.0), (0.0, 0.0)],
            &[(0.0, level), (1.0, level)],
            &[(0.0, 0.0), (1.0, 0.0)],
        ]);
        let due = 1.0 - (1.0 - covers(3.0)) / level;
        let step = covers(3.0) / f64::from(LENGTHENINGS);
        assert!((due..due + step).contains(&room(&touched)), "{} for {due}", room(&touched));
    }
}
