use crate::PlotError;
use crate::axis::Axis;
use crate::figure::{Figure, Layer, Panel, Stroke};
use crate::legend::{LETTER, PLOT, label_of, legend_at, shortened, shown};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

/// Width and height of a panel. At the 85 mm of a paper's column its 16-pixel letters are 8 points.
pub(crate) const PANEL: (u32, u32) = (480, 380);

/// PNG pixels for one of these.
const PNG_SCALE: u32 = 2;

/// Letters of a title that a panel has room for.
const TITLE_LETTERS: usize = 48;

const FONT: &str = "sans-serif";
pub(crate) const FONT_SIZE: u32 = 16;

/// A linear axis with given ticks.
struct Ticked {
    span: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.span.start) / (self.span.end - self.span.start);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.span.clone()
    }
}

type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<Ticked, Ticked>>;

/// Lengths in pixels of one output format.
#[derive(Clone, Copy)]
struct Pen(u32);

impl Pen {
    fn size(self, pixels: u32) -> u32 {
        self.0 * pixels
    }

    /// Whether it is that of the bitmap.
    fn draws_pixels(self) -> bool {
        self.0 == PNG_SCALE
    }

    fn length(self, pixels: f64) -> i32 {
        (f64::from(self.0) * pixels).round() as i32
    }
}

pub(crate) fn svg(figure: &Figure) -> Result<String, PlotError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size(figure, Pen(1))).into_drawing_area();
    figure_on(figure, &area, Pen(1)).map_err(|failure| failure.named(Path::new("SVG")))?;
    drop(area);
    Ok(text)
}

pub(crate) fn png(figure: &Figure, path: &Path) -> Result<(), PlotError> {
    let pen = Pen(PNG_SCALE);
    let area = BitMapBackend::new(path, size(figure, pen)).into_drawing_area();
    figure_on(figure, &area, pen).map_err(|failure| failure.named(path))
}

/// What can go wrong on the way, before the file is named.
enum Failure {
    Empty(String),
    Backend(String),
}

impl Failure {
    fn named(self, path: &Path) -> PlotError {
        match self {
            Self::Empty(title) => PlotError::Empty(title),
            Self::Backend(reason) => PlotError::Write { path: path.to_path_buf(), reason },
        }
    }
}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for Failure {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Backend(error.to_string())
    }
}

fn size(figure: &Figure, pen: Pen) -> (u32, u32) {
    let columns = figure.columns.clamp(1, figure.panels.len().max(1)) as u32;
    let rows = (figure.panels.len() as u32).div_ceil(columns).max(1);
    (pen.size(PANEL.0 * columns), pen.size(PANEL.1 * rows))
}

/// Makes the embedded font known, so that no machine needs one.
fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A name that is taken already is the same font.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
}

fn figure_on<DB>(figure: &Figure, area: &DrawingArea<DB, Shift>, pen: Pen) -> Result<(), Failure>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    font();
    area.fill(&WHITE)?;
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let rows = figure.panels.len().div_ceil(columns).max(1);
    for (panel, area) in figure.panels.iter().zip(area.split_evenly((rows, columns))) {
        panel_on(panel, &area, pen)?;
    }
    area.present()?;
    Ok(())
}

fn panel_on<DB>(panel: &Panel, area: &DrawingArea<DB, Shift>, pen: Pen) -> Result<(), Failure>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let pairs =
        || panel.layers.iter().flat_map(pairs_of).filter(|pair| place(panel, *pair).is_some());
    let spans =
        panel.x.span(pairs().map(|pair| pair.0)).zip(panel.y.span(pairs().map(|pair| pair.1)));
    let (x, y) = spans.ok_or_else(|| Failure::Empty(panel.title.clone()))?;
    let (corner, height) = legend_at(panel, &x, &y);
    let mut chart = ChartBuilder::on(area)
        .margin(pen.size(10))
        .margin_right(pen.size(margin_right(panel, &x)))
        .caption(shortened(&panel.title, TITLE_LETTERS), (FONT, pen.size(FONT_SIZE + 1)))
        .x_label_area_size(pen.size(44))
        .y_label_area_size(pen.size(66))
        .build_cartesian_2d(
            Ticked { span: x.clone(), ticks: ticks_apart(&panel.x, &x) },
            Ticked { span: height.clone(), ticks: panel.y.ticks(&height) },
        )?;
    axes(panel, &mut chart, &x, &height, pen)?;
    for layer in &panel.layers {
        layer_on(panel, layer, &mut chart, (&x, &height), pen)?;
    }
    if panel.layers.iter().any(|layer| label_of(layer).is_some()) {
        chart
            .configure_series_labels()
            .position(corner.position())
            .legend_area_size(pen.length(24.0))
            .margin(pen.size(8))
            .label_font((FONT, pen.size(FONT_SIZE - 2)))
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    Ok(())
}

/// Half of what the label at a place takes, pixels.
fn half_width(axis: &Axis, place: f64, span: &Range<f64>) -> f64 {
    let letters = axis.label_at(place, span).chars().count() as f64;
    0.5 * LETTER * f64::from(FONT_SIZE - 2) * letters
}

/// Where the labels of a horizontal axis stand: of its ticks every one, or every second, third, ..., so that no label runs into the
/// next one.
fn ticks_apart(axis: &Axis, span: &Range<f64>) -> Vec<f64> {
    let all = axis.ticks(span);
    let is_apart = |pair: &[f64]| {
        let between = (pair[1] - pair[0]) / (span.end - span.start) * PLOT.0;
        between >= half_width(axis, pair[0], span) + half_width(axis, pair[1], span)
    };
    let every = |n: usize| all.iter().copied().step_by(n).collect::<Vec<f64>>();
    let found = (1..=all.len()).map(every).find(|ticks| ticks.windows(2).all(is_apart));
    found.unwrap_or(all)
}

/// What the last label of the horizontal axis needs beside the panel, pixels.
fn margin_right(panel: &Panel, x: &Range<f64>) -> u32 {
    const LEAST: f64 = 18.0;
    let Some(last) = ticks_apart(&panel.x, x).last().copied() else { return LEAST as u32 };
    let half = half_width(&panel.x, last, x);
    let from_end = (x.end - last) / (x.end - x.start) * PLOT.0;
    (half - from_end).max(LEAST).ceil() as u32
}

fn axes<DB>(
    panel: &Panel,
    chart: &mut Chart<'_, DB>,
    x: &Range<f64>,
    y: &Range<f64>,
    pen: Pen,
) -> Result<(), Failure>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    chart
        .configure_mesh()
        .x_desc(&panel.x.label)
        .y_desc(&panel.y.label)
        .axis_desc_style((FONT, pen.size(FONT_SIZE)))
        .label_style((FONT, pen.size(FONT_SIZE - 2)))
        .x_label_formatter(&|place| panel.x.label_at(*place, x))
        .y_label_formatter(&|place| panel.y.label_at(*place, y))
        .bold_line_style(BLACK.mix(0.12).stroke_width(pen.size(1)))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.stroke_width(pen.size(1)))
        .draw()?;
    Ok(())
}

fn layer_on<'a, DB>(
    panel: &Panel,
    layer: &Layer,
    chart: &mut Chart<'a, DB>,
    seen: (&Range<f64>, &Range<f64>),
    pen: Pen,
) -> Result<(), Failure>
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
{
    // What lies beyond a given range is left out; the backends would draw it along the edge.
    let inside = |place: f64, range: &Range<f64>| {
        let slack = 1e-9 * (range.end - range.start);
        place >= range.start - slack && place <= range.end + slack
    };
    let (x, y) = seen;
    let placed = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let places = points.iter().filter_map(|point| place(panel, *point));
        places.filter(|at| inside(at.0, x) && inside(at.1, y)).collect()
    };
    match layer {
        Layer::Line { points, color, stroke, label } => {
            let width = if *stroke == Stroke::Thin { 1 } else { 2 };
            let style = color.rgb().stroke_width(pen.size(width));
            // Dash and gap.
            let broken = match stroke {
                Stroke::Solid | Stroke::Thin => None,
                Stroke::Dashed => Some((pen.length(7.0), pen.length(5.0))),
                Stroke::Dotted => Some((pen.length(2.0), pen.length(3.0))),
            };
            let places: Vec<_> = points.iter().map(|point| place(panel, *point)).collect();
            let mut drawn = pieces(&places, x, y);
            if pen.draws_pixels() {
                let parts = drawn.iter().flat_map(|piece| {
                    without_sharp_corners(piece, |place| chart.backend_coord(&place))
                });
                drawn = parts.collect();
            }
            for piece in drawn {
                if pen.draws_pixels() && broken.is_none() && width > 1 {
                    let (ends, radius) = ([piece[0], piece[piece.len() - 1]], pen.length(1.0));
                    let dots = ends.map(|at| Circle::new(at, radius, color.rgb().filled()));
                    chart.draw_series(dots)?;
                }
                if let [alone] = piece[..] {
                    let dot = Circle::new(alone, pen.length(f64::from(width)), style.filled());
                    chart.draw_series(std::iter::once(dot))?;
                } else if let Some((dash, gap)) = broken {
                    let (dash, gap) = (dash as u32, gap as u32);
                    chart.draw_series(DashedLineSeries::new(piece, dash, gap, style))?;
                } else {
                    chart.draw_series(LineSeries::new(piece, style))?;
                }
            }
            if let Some(label) = label {
                let drawn = chart.draw_series(LineSeries::new(Vec::new(), style))?;
                let length = pen.length(20.0);
                drawn.label(shown(label)).legend(move |(x, y)| {
                    let ends = [(x, y), (x + length, y)];
                    match broken {
                        None => PathElement::new(ends, style).into_dyn(),
                        Some((dash, _)) => {
                            let gap = (dash - 1).max(2);
                            plotters::element::DashedPathElement::new(ends, dash, gap, style)
                                .into_dyn()
                        }
                    }
                });
            }
        }
        Layer::Points { points, color, radius, label } => {
            let (radius, style) = (pen.length(*radius), color.rgb().filled());
            let dots = placed(points).into_iter().map(|at| Circle::new(at, radius, style));
            let drawn = chart.draw_series(dots)?;
            if let Some(label) = label {
                let middle = pen.length(10.0);
                drawn
                    .label(shown(label))
                    .legend(move |(x, y)| Circle::new((x + middle, y), radius, style).into_dyn());
            }
        }
        Layer::Band { points, color, label } => {
            let lower: Vec<(f64, f64)> = points.iter().map(|point| (point.0, point.1)).collect();
            let upper: Vec<(f64, f64)> =
                points.iter().rev().map(|point| (point.0, point.2)).collect();
            let style = color.rgb().mix(0.2).filled();
            // An edge beyond a given range is drawn along its end, so that the area keeps its shape.
            let clamped = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
                let places = points.iter().filter_map(|point| place(panel, *point));
                let within = places.filter(|at| inside(at.0, x));
                within.map(|at| (at.0, at.1.clamp(y.start, y.end))).collect()
            };
            let outline = [clamped(&lower), clamped(&upper)].concat();
            let drawn = chart.draw_series(std::iter::once(Polygon::new(outline, style)))?;
            if let Some(label) = label {
                let (length, height) = (pen.length(20.0), pen.length(5.0));
                drawn.label(shown(label)).legend(move |(x, y)| {
                    Rectangle::new([(x, y - height), (x + length, y + height)], style).into_dyn()
                });
            }
        }
    }
    Ok(())
}

/// What of a line lies within two ranges: its parts between where it comes in and where it leaves, or has no place.
fn pieces(places: &[Option<(f64, f64)>], x: &Range<f64>, y: &Range<f64>) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut before = None;
    for place in places {
        let part = place.and_then(|to| clipped(before.unwrap_or(to), to, x, y));
        if let Some((from, to)) = part {
            match pieces.last_mut().filter(|piece| before.is_some() && piece.last() == Some(&from))
            {
                Some(piece) => piece.push(to),
                None if from == to => pieces.push(vec![to]),
                None => pieces.push(vec![from, to]),
            }
        }
        before = *place;
    }
    pieces
}

/// The part of a straight line that lies within two ranges (Liang and Barsky 1984).
fn clipped(
    from: (f64, f64),
    to: (f64, f64),
    x: &Range<f64>,
    y: &Range<f64>,
) -> Option<((f64, f64), (f64, f64))> {
    let (mut enters, mut leaves) = (0.0f64, 1.0f64);
    for (from, to, range) in [(from.0, to.0, x), (from.1, to.1, y)] {
        let slack = 1e-9 * (range.end - range.start);
        let (least, most) = (range.start - slack, range.end + slack);
        let step = to - from;
        if step == 0.0 {
            if from < least || from > most {
                return None;
            }
            continue;
        }
        let (a, b) = ((least - from) / step, (most - from) / step);
        enters = enters.max(a.min(b));
        leaves = leaves.min(a.max(b));
    }
    let at = |share: f64| match share {
        0.0 => from,
        1.0 => to,
        share => (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1)),
    };
    (enters <= leaves).then(|| (at(enters), at(leaves)))
}

/// Every point that a layer shows.
fn pairs_of(layer: &Layer) -> Vec<(f64, f64)> {
    match layer {
        Layer::Line { points, .. } | Layer::Points { points, .. } => points.clone(),
        Layer::Band { points, .. } => {
            points.iter().flat_map(|point| [(point.0, point.1), (point.0, point.2)]).collect()
        }
    }
}

/// Where a pair lies on a panel's axes; `None` where it has no place.
pub(crate) fn place(panel: &Panel, pair: (f64, f64)) -> Option<(f64, f64)> {
    panel.x.place(pair.0).zip(panel.y.place(pair.1))
}

/// A line in parts that end where it turns sharply, and without points that are of one place with the one before: the bitmap's outline
/// of a line has its corners where the edges meet, which is far beyond a sharp one.
fn without_sharp_corners(
    line: &[(f64, f64)],
    pixel: impl Fn((f64, f64)) -> (i32, i32),
) -> Vec<Vec<(f64, f64)>> {
    const LEAST_COSINE: f64 = 0.5;
    const ONE_PLACE: f64 = 2.0;
    let way = |from: (f64, f64), to: (f64, f64)| {
        let (from, to) = (pixel(from), pixel(to));
        (f64::from(to.0 - from.0), f64::from(to.1 - from.1))
    };
    let length = |(x, y): (f64, f64)| x.hypot(y);
    let mut parts: Vec<Vec<(f64, f64)>> = vec![line[..1].to_vec()];
    for (i, to) in line.iter().enumerate().skip(1) {
        let last = parts.len() - 1;
        let part = &mut parts[last];
        let at = part[part.len() - 1];
        let next = way(at, *to);
        if length(next) < ONE_PLACE && i + 1 < line.len() {
            continue;
        }
        let is_sharp = part.len() > 1 && {
            let before = way(part[part.len() - 2], at);
            let product = before.0 * next.0 + before.1 * next.1;
            product < LEAST_COSINE * length(before) * length(next)
        };
        if is_sharp {
            parts.push(vec![at, *to]);
        } else {
            part.push(*to);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Color;

    /// A noisy curve has the same height in pixels as in an SVG: no corner shoots beyond it.
    #[test]
    fn corners_of_a_line_stay_where_they_are() {
        let noise = |i: u32| 0.45 + 1e-3 * f64::from(i * 7919 % 101);
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), noise(i))).collect();
        for stroke in [Stroke::Solid, Stroke::Dashed, Stroke::Thin] {
            let line = Layer::Line {
                points: points.clone(),
                color: Color::Series(1),
                stroke,
                label: None,
            };
            let panel = Panel {
                title: String::new(),
                x: Axis::linear("x"),
                y: Axis { range: Some((0.0, 1.0)), ..Axis::linear("y") },
                layers: vec![line],
            };
            let figure = Figure { panels: vec![panel], columns: 1 };
            let pen = Pen(PNG_SCALE);
            let (width, height) = size(&figure, pen);
            let mut pixels = vec![0; 3 * (width * height) as usize];
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            assert!(figure_on(&figure, &area, pen).is_ok());
            drop(area);
            let RGBColor(red, green, blue) = Color::Series(1).rgb();
            let is_line = |row: &[u8]| row.chunks(3).any(|pixel| pixel == [red, green, blue]);
            let rows: Vec<usize> = pixels
                .chunks(3 * width as usize)
                .enumerate()
                .filter_map(|(row, pixels)| is_line(pixels).then_some(row))
                .collect();
            let drawn = (rows[rows.len() - 1] - rows[0]) as f64 / f64::from(height);
            assert!((0.06..0.1).contains(&drawn), "{stroke:?}: {drawn}");
        }
    }

    #[test]
    fn labels_do_not_run_into_one_another() {
        let log = Axis::log("x");
        let labels = |from: f64, to: f64| {
            let span = from.log10()..to.log10();
            let places = ticks_apart(&log, &span);
            places.iter().map(|place| log.label_at(*place, &span)).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.9e12, 3.76e12), ["10¹²", "2×10¹²", "3×10¹²"]);
        assert!(labels(5.25e11, 1.43e12).len() > 2);
        assert_eq!(labels(2.3, 3.45), ["2.4", "2.6", "2.8", "3", "3.2", "3.4"]);
        assert_eq!(labels(1.0001e12, 1.0006e12).len(), 3);
    }

    #[test]
    fn a_line_is_in_parts_between_its_sharp_corners() {
        let line = [(0.0, 0.0), (9.0, 1.0), (10.0, 1.0), (20.0, 4.0), (15.0, 9.0), (16.0, 9.0)];
        let parts = without_sharp_corners(&line, |(x, y)| (x as i32, y as i32));
        assert_eq!(
            parts,
            [vec![line[0], line[1], line[3]], vec![line[3], line[4]], vec![line[4], line[5]]]
        );
        assert_eq!(without_sharp_corners(&line[..1], |_| (0, 0)), [vec![line[0]]]);
    }

    #[test]
    fn a_line_is_cut_where_it_leaves_and_not_bridged() {
        let cut = |places: &[(f64, f64)]| {
            let places: Vec<_> = places.iter().map(|place| Some(*place)).collect();
            pieces(&places, &(0.0..4.0), &(0.0..1.0))
        };
        let near = |found: &[Vec<(f64, f64)>], due: &[&[(f64, f64)]]| {
            assert_eq!(found.len(), due.len(), "{found:?}");
            for (found, due) in found.iter().zip(due) {
                assert_eq!(found.len(), due.len(), "{found:?}");
                for (a, b) in found.iter().zip(*due) {
                    assert!((a.0 - b.0).abs() + (a.1 - b.1).abs() < 1e-6, "{found:?}");
                }
            }
        };
        // Up through the upper edge, along above it, and down again.
        let peak = cut(&[(0.0, 0.5), (1.0, 1.5), (2.0, 3.0), (3.0, 1.5), (4.0, 0.5)]);
        near(&peak, &[&[(0.0, 0.5), (0.5, 1.0)], &[(3.5, 1.0), (4.0, 0.5)]]);
        near(&cut(&[(0.0, 0.2), (2.0, 0.4), (4.0, 0.1)]), &[&[(0.0, 0.2), (2.0, 0.4), (4.0, 0.1)]]);
        near(&cut(&[(1.0, 0.5)]), &[&[(1.0, 0.5)]]);
        near(&cut(&[(1.0, -1.0), (1.0, 2.0)]), &[&[(1.0, 0.0), (1.0, 1.0)]]);
        near(&cut(&[(1.0, 2.0), (5.0, 2.0)]), &[]);
        let gap = pieces(&[Some((0.0, 0.1)), None, Some((1.0, 0.1))], &(0.0..4.0), &(0.0..1.0));
        near(&gap, &[&[(0.0, 0.1)], &[(1.0, 0.1)]]);
    }
}
