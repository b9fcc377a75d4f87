// The curve of accuracy over labels, as a drawing: what was measured after each batch, and what is expected.

export interface CoursePoint {
  readonly labels: number;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly expected: boolean;
}

interface Estimate {
  readonly value: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

interface Measured {
  readonly labels: number;
  readonly accuracy: Estimate;
  readonly at_twice: Estimate;
}

function pointOf(labels: number, estimate: Estimate, expected: boolean): CoursePoint[] {
  const { value, low, high } = estimate;
  return value === null || low === null || high === null ? [] : [{ labels, value, low, high, expected }];
}

/** The points of the course, by labels, and the expected one at twice the labels. */
export function courseOf(course: readonly Measured[]): CoursePoint[] {
  const last = course.at(-1);
  const measured = course.flatMap(({ labels, accuracy }) => pointOf(labels, accuracy, false));
  const expected = last ? pointOf(2 * last.labels, last.at_twice, true) : [];
  return [...measured.sort((a, b) => a.labels - b.labels), ...expected];
}

/** Where a point is in a drawing of a size: labels to the right, accuracy up, both from the least to the most. */
export function scaleOf(points: readonly CoursePoint[], width: number, height: number): (labels: number, value: number) => readonly [number, number] {
  const labels = points.map((point) => point.labels);
  const [left, right] = [Math.min(...labels), Math.max(...labels)];
  const low = Math.min(...points.map((point) => point.low));
  const high = Math.max(...points.map((point) => point.high));
  return (n, value) => [
    right > left ? ((n - left) / (right - left)) * width : width / 2,
    high > low ? height - ((value - low) / (high - low)) * height : height / 2,
  ];
}
