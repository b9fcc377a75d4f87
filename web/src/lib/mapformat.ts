// The map as the server sends it: ids and places once, then codes and bits in the same order.

export interface MapData {
  readonly ids: Float64Array;
  readonly xy: Float32Array;
  readonly generation: number;
}

const HEADER = 24; // 8 bytes of a name, the number of items, the generation

interface Header {
  readonly count: number;
  readonly generation: number;
}

function headerOf(buffer: ArrayBuffer, magic: string): Header {
  const name = String.fromCharCode(...new Uint8Array(buffer, 0, Math.min(8, buffer.byteLength)));
  if (name !== magic || buffer.byteLength < HEADER) throw new Error(`the server sent ${name} where ${magic} was expected`);
  const view = new DataView(buffer);
  return { count: Number(view.getBigUint64(8, true)), generation: Number(view.getBigUint64(16, true)) };
}

export function parseMap(buffer: ArrayBuffer): MapData {
  const { count, generation } = headerOf(buffer, "ESMAP001");
  const halves = new Uint32Array(buffer, HEADER, 2 * count); // ids are far below 2^53
  const ids = new Float64Array(count);
  for (let item = 0; item < count; item++) {
    ids[item] = (halves[2 * item] as number) + (halves[2 * item + 1] as number) * 2 ** 32;
  }
  return { ids, xy: new Float32Array(buffer, HEADER + 8 * count, 2 * count), generation };
}

export function parseCodes(buffer: ArrayBuffer): Uint16Array {
  const { count } = headerOf(buffer, "ESCOD001");
  return new Uint16Array(buffer, HEADER, count);
}

export function parseMask(buffer: ArrayBuffer): Uint8Array {
  const { count } = headerOf(buffer, "ESMSK001");
  return new Uint8Array(buffer, HEADER, Math.ceil(count / 8));
}

export function isInside(mask: Uint8Array | null, item: number): boolean {
  return mask === null || (((mask[item >> 3] ?? 0) >> (item & 7)) & 1) === 1;
}
