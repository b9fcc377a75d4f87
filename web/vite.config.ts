import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// `npm run dev` shows the page with live reload; the API comes from a running `embedstore serve`.
export default defineConfig({
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: "../embedstore/server/static",
    emptyOutDir: true,
    target: "es2022",
    chunkSizeWarningLimit: 1200, // deck.gl, which is loaded when the map opens
  },
  server: { proxy: { "/api": { target: "http://127.0.0.1:8765", changeOrigin: true } } },
  test: { include: ["src/**/*.test.ts"] },
});
