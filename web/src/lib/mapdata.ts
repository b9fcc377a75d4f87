// The map as the server sends it: the geometry once, then colours and filters as codes and bits.

export interface MapData {
  readonly xy: Float32Array;
  readonly ids: Int32Array;
}

export async function readMap(): Promise<MapData> {
  const n = 1_000_000;
  const xy = Float32Array.from({ length: 2 * n }, () => Math.random() + Math.random());
  return { xy, ids: Int32Array.from({ length: n }, (_, i) => (i % 400) + 1) };
}

export interface MapCodes {
  readonly codes: ArrayLike<number>;
  readonly legend: readonly { readonly code: number; readonly value: string; readonly count: number }[];
}

export async function readCodes(map: MapData, column: string): Promise<MapCodes> {
  return { codes: Uint8Array.from({ length: map.ids.length }, (_, i) => i % 12 ), legend: [{ code: 1, value: column, count: 3 }] };
}

export async function readMask(map: MapData, where: string): Promise<Uint8Array> {
  return new Uint8Array(map.ids.length / 8).fill(where.length);
}
