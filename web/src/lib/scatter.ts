// The drawing of the map: deck.gl with the points as binary attributes, which go to the graphics memory as they are.

import { Deck, OrthographicView, type OrthographicViewState } from "@deck.gl/core";
import { ScatterplotLayer } from "@deck.gl/layers";

import type { Bounds } from "./points";

export type Place = readonly [number, number];

export interface ScatterEvents {
  readonly onview: () => void;
  readonly onhover: (at: Place | null) => void;
  readonly onclick: (at: Place) => void;
  readonly ondrawn: () => void;
}

/** Pixels at the edges of the screen that something covers. */
export interface Margins {
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

const FILL = 0.92; // of the room between the margins, when the whole map is shown
const MAX_ZOOM_IN = 14;

export class Scatter {
  readonly #deck: Deck<OrthographicView>;
  #view: OrthographicViewState = { target: [0, 0], zoom: 0 };
  #xy: Float32Array = new Float32Array();
  #colors: Uint8Array = new Uint8Array();
  #fit = 0;
  #isWhole = false;
  #size: Place;
  #drawn = false;

  constructor(canvas: HTMLCanvasElement, size: Place, events: ScatterEvents) {
    this.#size = size;
    this.#deck = new Deck({
      canvas,
      width: size[0],
      height: size[1],
      views: new OrthographicView({ id: "map", flipY: true }),
      controller: { doubleClickZoom: false, inertia: false, scrollZoom: { speed: 0.02, smooth: false } },
      viewState: this.#view,
      useDevicePixels: 1,
      layers: [],
      getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "crosshair"),
      onLoad: () => {
        canvas.tabIndex = -1; // the element around it has the keyboard
      },
      onViewStateChange: ({ viewState }) => {
        this.look(viewState);
        events.onview();
      },
      onHover: ({ x, y }) => {
        events.onhover(x < 0 ? null : [x, y]);
      },
      onClick: ({ x, y }) => {
        events.onclick([x, y]);
      },
      onAfterRender: () => {
        if (this.#drawn || this.#xy.length === 0) return;
        this.#drawn = true;
        events.ondrawn();
      },
    });
  }

  show(xy: Float32Array, colors: Uint8Array): void {
    this.#xy = xy;
    this.recolor(colors);
  }

  recolor(colors: Uint8Array): void {
    this.#colors = colors;
    this.#render();
  }

  resize(size: Place): void {
    this.#size = size;
    this.#deck.setProps({ width: size[0], height: size[1] });
  }

  /** Show the whole map, between those of some margins that leave it the most room. */
  fit(bounds: Bounds, choices: readonly Margins[]): void {
    const [width, height] = this.#size;
    const wide = Math.max(bounds.right - bounds.left, 1e-9);
    const tall = Math.max(bounds.high - bounds.low, 1e-9);
    const scaleOf = ({ top, right, bottom }: Margins): number =>
      FILL * Math.min(Math.max(width - right, 1) / wide, Math.max(height - top - bottom, 1) / tall);
    const { top, right, bottom } = choices.reduce((best, other) => (scaleOf(other) > scaleOf(best) ? other : best));
    const scale = scaleOf({ top, right, bottom });
    this.#fit = Math.log2(scale);
    const centre = [(bounds.left + bounds.right) / 2, (bounds.low + bounds.high) / 2] as const;
    this.look({ target: [centre[0] + right / 2 / scale, centre[1] - (top - bottom) / 2 / scale], zoom: this.#fit });
    this.#isWhole = true;
  }

  /** Whether nobody moved the map since all of it was shown. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  look(view: OrthographicViewState): void {
    this.#isWhole = false;
    const zoom = Math.min(Math.max(zoomOf(view), this.#fit - 1), this.#fit + MAX_ZOOM_IN);
    this.#view = { ...view, zoom };
    this.#deck.setProps({ viewState: this.#view });
    this.#render();
  }

  /** Move by a part of the screen. */
  pan(right: number, down: number): void {
    const [x = 0, y = 0] = this.#view.target ?? [0, 0];
    const scale = 2 ** zoomOf(this.#view);
    this.look({ ...this.#view, target: [x + (right * this.#size[0]) / scale, y + (down * this.#size[1]) / scale] });
  }

  zoom(by: number): void {
    this.look({ ...this.#view, zoom: zoomOf(this.#view) + by });
  }

  /** How far in, in powers of two from the whole map. */
  get depth(): number {
    return zoomOf(this.#view) - this.#fit;
  }

  toMap([x, y]: Place): Place {
    const scale = 2 ** zoomOf(this.#view);
    const [centreX = 0, centreY = 0] = this.#view.target ?? [0, 0];
    return [centreX + (x - this.#size[0] / 2) / scale, centreY + (y - this.#size[1] / 2) / scale];
  }

  toScreen([x, y]: Place): Place {
    const scale = 2 ** zoomOf(this.#view);
    const [centreX = 0, centreY = 0] = this.#view.target ?? [0, 0];
    return [(x - centreX) * scale + this.#size[0] / 2, (y - centreY) * scale + this.#size[1] / 2];
  }

  /** What is on the screen. */
  get area(): Bounds {
    const [left, low] = this.toMap([0, 0]); // y goes down, as on the screen
    const [right, high] = this.toMap(this.#size);
    return { left, right, low, high };
  }

  close(): void {
    this.#deck.finalize();
  }

  #render(): void {
    const count = this.#xy.length / 2;
    const radius = Math.min(7, Math.max(1.1, 5 - Math.log10(Math.max(count, 1)) * 0.65) + Math.max(0, this.depth) * 0.5);
    const layer = new ScatterplotLayer({
      id: "points",
      data: {
        length: count,
        attributes: {
          getPosition: { value: this.#xy, size: 2 },
          getFillColor: { value: this.#colors, size: 4, normalized: true },
        },
      },
      radiusUnits: "pixels",
      getRadius: radius,
      updateTriggers: { getRadius: radius },
      antialiasing: count < 200_000,
      pickable: false,
    });
    this.#deck.setProps({ layers: [layer] });
  }
}

function zoomOf(view: OrthographicViewState): number {
  const { zoom } = view;
  return typeof zoom === "number" ? zoom : (zoom?.[0] ?? 0);
}
