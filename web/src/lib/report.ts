// The parts of a report that the page shows. The report is the JSON of the command line; what is missing is left out.

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly low: number | null;
  readonly high: number | null;
}

export interface ClassRow {
  readonly name: string;
  readonly support: number;
  readonly precision: number | null;
  readonly recall: number | null;
}

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const numberOr = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

// The usual names of the metrics whose keys are not words.
const METRICS: Record<string, string> = {
  top5_accuracy: "top-5 accuracy",
  mean_per_class_recall: "mean recall of the classes",
  macro_f1: "macro F1",
  brier_score: "Brier score",
  auroc_ovr_macro: "AUROC, mean of the classes",
  average_precision_macro: "average precision, mean of the classes",
};

export function figuresOf(report: Json): Figure[] {
  const metrics = isObject(report["metrics"]) ? report["metrics"] : {};
  return Object.entries(metrics).flatMap(([name, entry]) => {
    const parts = isObject(entry) ? entry : { value: entry };
    const value = numberOr(parts["value"]);
    if (value === null) return [];
    return [{ name: METRICS[name] ?? name.replaceAll("_", " "), value, low: numberOr(parts["low"]), high: numberOr(parts["high"]) }];
  });
}

export function confusionOf(report: Json): number[][] {
  return listOf(report["confusion"]).map((row) => listOf(row).map((cell) => numberOr(cell) ?? 0));
}

export function classesOf(report: Json): ClassRow[] {
  return listOf(report["per_class"])
    .filter(isObject)
    .map((row) => ({
      name: String(row["name"]),
      support: numberOr(row["support"]) ?? 0,
      precision: numberOr(row["precision"]),
      recall: numberOr(row["recall"]),
    }));
}

export interface Confusion {
  readonly truth: string;
  readonly predicted: string;
  readonly count: number;
}

/** The cells off the diagonal, the largest first. */
export function mistakesOf(matrix: readonly (readonly number[])[], classes: readonly string[]): Confusion[] {
  return matrix
    .flatMap((row, truth) =>
      row.map((count, predicted) => ({ truth: classes[truth] ?? "", predicted: classes[predicted] ?? "", count, off: truth !== predicted })),
    )
    .filter(({ off, count }) => off && count > 0)
    .sort((a, b) => b.count - a.count);
}

/** The held-out items with one value of a column. */
export interface Slice {
  readonly value: string | null;
  readonly count: number;
  readonly score: Figure | null;
}

export function slicesOf(report: Json): Slice[] {
  const slices = isObject(report["slices"]) ? report["slices"] : {};
  return listOf(slices["slices"])
    .filter(isObject)
    .map((row) => {
      const value = numberOr(row["accuracy"]);
      const [low, high] = [numberOr(row["accuracy_low"]), numberOr(row["accuracy_high"])];
      const score = value === null ? null : { name: "accuracy", value, low, high };
      return { value: row["value"] === null ? null : String(row["value"]), count: numberOr(row["items"]) ?? 0, score };
    });
}

/** The held-out items of similar confidence. */
export interface Bin {
  readonly count: number;
  readonly confidence: number;
  readonly accuracy: number;
  readonly low: number | null;
  readonly high: number | null;
}

export function binsOf(report: Json): Bin[] {
  return listOf(report["reliability"])
    .filter(isObject)
    .map((row) => ({
      count: numberOr(row["rows"]) ?? 0,
      confidence: numberOr(row["confidence"]) ?? 0,
      accuracy: numberOr(row["accuracy"]) ?? 0,
      low: numberOr(row["low"]),
      high: numberOr(row["high"]),
    }));
}
