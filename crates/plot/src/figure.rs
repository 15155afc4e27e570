use crate::draw;
use crate::{Axis, Color, PlotError};
use std::path::Path;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Unbroken.
    Solid,
    /// In dashes.
    Dashed,
    /// In dots.
    Dotted,
    /// Unbroken and thin, for what lies behind.
    Thin,
}

/// Something drawn in a panel; pairs are x and y.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// A line through points.
    Line {
        /// Points, in order.
        points: Vec<(f64, f64)>,
        /// Colour.
        color: Color,
        /// How it is drawn.
        stroke: Stroke,
        /// Its name in the legend.
        label: Option<String>,
    },
    /// Dots.
    Points {
        /// Centres.
        points: Vec<(f64, f64)>,
        /// Colour.
        color: Color,
        /// Radius, in pixels of a panel that is 480 wide.
        radius: f64,
        /// Its name in the legend.
        label: Option<String>,
    },
    /// The area between two lines over the same x.
    Band {
        /// x, lower y and upper y.
        points: Vec<(f64, f64, f64)>,
        /// Colour, drawn faintly.
        color: Color,
        /// Its name in the legend.
        label: Option<String>,
    },
}

impl Layer {
    /// A line with a name.
    pub fn line(points: Vec<(f64, f64)>, color: Color, label: &str) -> Self {
        Self::Line { points, color, stroke: Stroke::Solid, label: Some(label.to_string()) }
    }

    /// The same without a name in the legend.
    #[must_use]
    pub fn without_label(mut self) -> Self {
        match &mut self {
            Self::Line { label, .. } | Self::Points { label, .. } | Self::Band { label, .. } => {
                *label = None;
            }
        }
        self
    }

    /// Dots with a name.
    pub fn points(points: Vec<(f64, f64)>, color: Color, label: &str) -> Self {
        Self::Points { points, color, radius: 3.0, label: Some(label.to_string()) }
    }
}

/// One pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Title above it.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn, the first at the back.
    pub layers: Vec<Layer>,
}

/// Panels beside and below one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The panels, row by row.
    pub panels: Vec<Panel>,
    /// Panels in a row.
    pub columns: usize,
}

impl Figure {
    /// A figure of one panel.
    pub fn of(panel: Panel) -> Self {
        Self { panels: vec![panel], columns: 1 }
    }

    /// Errs unless a file's name says SVG or PNG.
    ///
    /// # Errors
    /// Another kind of file.
    pub fn check_format(path: &Path) -> Result<(), PlotError> {
        if is_of_kind(path, "svg") || is_of_kind(path, "png") {
            return Ok(());
        }
        Err(PlotError::Format(path.to_path_buf()))
    }

    /// Writes the figure, as SVG or PNG by the file's name; the file appears when it is whole, in the place of a link too.
    ///
    /// # Errors
    /// Another kind of file, nothing to draw, or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        Self::check_format(path)?;
        let refused = |error: &dyn std::fmt::Display| PlotError::Write {
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| refused(&error))?;
        }
        // The format is told from the ending, so the other name keeps it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".partial-{name}"));
        let drawn = if is_of_kind(path, "svg") {
            self.svg()
                .and_then(|text| std::fs::write(&partial, text).map_err(|error| refused(&error)))
        } else {
            // Why a file cannot be written the system says best.
            let made = std::fs::File::create(&partial).map_err(|error| refused(&error));
            made.and_then(|_| draw::png(self, &partial))
        };
        let placed = || {
            std::fs::File::open(&partial)?.sync_all()?;
            std::fs::rename(&partial, path)
        };
        let renamed = drawn.and_then(|()| placed().map_err(|error| refused(&error)));
        if renamed.is_err() {
            // The first error says more than one about tidying up.
            let _ = std::fs::remove_file(&partial);
        }
        renamed
    }

    /// The figure as SVG.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn svg(&self) -> Result<String, PlotError> {
        draw::svg(self)
    }
}

fn is_of_kind(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn panel() -> Panel {
        let curve: Vec<(f64, f64)> =
            (1..60).map(|i| (1e12 * f64::from(i), 5.0 * f64::from(i).powf(-0.1))).collect();
        Panel {
            title: "Loss".into(),
            x: Axis::log("compute (FLOPs)"),
            y: Axis::log("loss (nats per token)"),
            layers: vec![
                Layer::line(curve.clone(), Color::Series(0), "small & <large>"),
                Layer::points(curve, Color::Series(1), "measured"),
            ],
        }
    }

    #[test]
    fn a_figure_is_written_as_svg_and_png() {
        let folder = tempfile::tempdir().unwrap();
        let figure = Figure { panels: vec![panel(), panel(), panel()], columns: 2 };
        for name in ["a.svg", "b.png"] {
            let path = folder.path().join("made/here").join(name);
            figure.write(&path).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() > 5_000, "{name}");
        }
        let svg = figure.svg().unwrap();
        for words in ["compute (FLOPs)", "small &amp; &lt;large&gt;", "10¹³"] {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(std::fs::read_dir(folder.path().join("made/here")).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_drawn_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gif");
        let message = Figure::of(panel()).write(&path).unwrap_err().to_string();
        assert!(message.contains("a.gif: figures are written as .svg or .png"), "{message}");
        let empty =
            Panel { layers: vec![Layer::line(vec![(-1.0, 2.0)], Color::Black, "x")], ..panel() };
        assert!(Figure::of(empty).svg().unwrap_err().to_string().contains("nothing to draw"));
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        assert!(Figure::of(panel()).write(&blocked.join("a.svg")).is_err());
        let linear = Panel { x: Axis { scale: Scale::Linear, ..panel().x }, ..panel() };
        assert!(Figure::of(linear).svg().is_ok());
    }
}
