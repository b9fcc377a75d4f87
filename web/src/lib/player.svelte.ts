// Plays one sound at a time, from a card of the grid.

import { api, body, sound } from "./api";
import { messages } from "./messages.svelte";

class Player {
  /** The item that is heard. */
  playing: number | null = $state(null);
  readonly #audio = new Audio();

  constructor() {
    this.#audio.onended = () => {
      this.playing = null;
    };
  }

  toggle(id: number): void {
    if (this.playing === id) this.stop();
    else void this.#play(id);
  }

  /** Play or stop an item if it is a sound; what cannot be read is no sound. */
  async toggleSound(id: number): Promise<void> {
    const answer = await body(api.GET("/api/v1/items/{item}/preview", { params: { path: { item: id } } })).catch(() => null);
    if (answer?.kind === "sound") this.toggle(id);
  }

  stop(): void {
    this.playing = null;
    this.#audio.pause();
  }

  async #play(id: number): Promise<void> {
    this.playing = id;
    this.#audio.src = sound(id);
    try {
      await this.#audio.play();
    } catch {
      if (this.playing !== id) return; // another sound was chosen meanwhile
      this.playing = null;
      messages.complain(new Error("The sound cannot be played: its file is not where it was, or it cannot be decoded."));
    }
  }
}

export const player = new Player();
