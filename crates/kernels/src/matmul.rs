//! Products of matrices that lie in slices.

use gemm::Parallelism;

/// A matrix in a slice, by rows or any other steps.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// A whole slice, row by row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::part(data, rows, columns, columns)
    }

    /// Columns beside others: from one row to the next it is `row_step` elements.
    pub fn part(data: &'a [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        check(data.len(), rows, columns, row_step);
        Self { data, rows, columns, row_step, column_step: 1 }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }
}

/// Where a product goes.
pub struct Product<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
}

impl<'a> Product<'a> {
    /// A whole slice, row by row.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::part(data, rows, columns, columns)
    }

    /// Columns beside others: from one row to the next it is `row_step` elements.
    pub fn part(data: &'a mut [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        check(data.len(), rows, columns, row_step);
        Self { data, rows, columns, row_step }
    }

    /// Becomes `factor` A B.
    pub fn set(self, factor: f32, a: Matrix<'_>, b: Matrix<'_>) {
        self.run(factor, a, b, false);
    }

    /// Gets A B added.
    pub fn add(self, a: Matrix<'_>, b: Matrix<'_>) {
        self.run(1.0, a, b, true);
    }

    #[allow(unsafe_code)]
    fn run(self, factor: f32, a: Matrix<'_>, b: Matrix<'_>, add: bool) {
        assert_eq!((a.rows, a.columns), (self.rows, b.rows), "inner dimensions");
        assert_eq!(self.columns, b.columns, "columns");
        // SAFETY: every element that the steps lead to lies in its slice, as `check` has made sure, and
        // the borrows keep the product apart from the factors.
        unsafe {
            gemm::gemm(
                self.rows,
                self.columns,
                a.columns,
                self.data.as_mut_ptr(),
                1,
                self.row_step as isize,
                add,
                a.data.as_ptr(),
                a.column_step as isize,
                a.row_step as isize,
                b.data.as_ptr(),
                b.column_step as isize,
                b.row_step as isize,
                1.0,
                factor,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// Panics unless all rows lie in the slice, apart from one another.
fn check(len: usize, rows: usize, columns: usize, row_step: usize) {
    assert!(rows <= 1 || row_step >= columns, "rows overlap");
    let end = if rows == 0 { 0 } else { (rows - 1) * row_step + columns };
    assert!(end <= len, "a matrix of {rows} x {columns} in {len} elements");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (64, 33, 1), (17, 64, 20)] {
            let element = |i: usize| ((i * 37 + 11) % 19) as f32 - 9.0;
            let a: Vec<f32> = (0..m * k).map(element).collect();
            let b: Vec<f32> = (0..k * n).map(element).collect();
            let due = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f32>();
            let (a_matrix, b_matrix) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            let mut c = vec![f32::NAN; m * n];
            Product::new(&mut c, m, n).set(2.0, a_matrix, b_matrix);
            assert!((0..m * n).all(|x| c[x] == 2.0 * due(x / n, x % n)));
            Product::new(&mut c, m, n).add(a_matrix, b_matrix);
            assert!((0..m * n).all(|x| c[x] == 3.0 * due(x / n, x % n)));
            // The transposed product into the middle of wider rows.
            let mut wide = vec![0.5; n * (m + 3)];
            Product::part(&mut wide[2..], n, m, m + 3).set(1.0, b_matrix.t(), a_matrix.t());
            for (j, row) in wide.chunks(m + 3).enumerate() {
                assert_eq!((row[0], row[1], row[m + 2]), (0.5, 0.5, 0.5));
                assert!((0..m).all(|i| row[2 + i] == due(i, j)));
            }
        }
    }

    #[test]
    #[should_panic(expected = "a matrix of 3 x 4 in 11 elements")]
    fn a_slice_that_is_too_short_is_refused() {
        Matrix::new(&[0.0; 11], 3, 4);
    }
}
