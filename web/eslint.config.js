import svelte from "eslint-plugin-svelte";
import globals from "globals";
import ts from "typescript-eslint";

import svelteConfig from "./svelte.config.js";

export default ts.config(
  { ignores: ["node_modules/", ".build-*/", "src/api.d.ts"] },
  ...ts.configs.strict,
  ...svelte.configs.recommended,
  { languageOptions: { globals: { ...globals.browser, ...globals.node } } },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    languageOptions: { parserOptions: { extraFileExtensions: [".svelte"], parser: ts.parser, svelteConfig } },
  },
  // names, labels and columns come from strangers: they are text, never markup, and nothing builds code from them
  { rules: { "svelte/no-at-html-tags": "error", "no-eval": "error", "no-implied-eval": "error" } },
  {
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "@typescript-eslint/no-unused-vars": ["error", { varsIgnorePattern: "^_" }],
      // svelte-check decides which of them are needed
      "svelte/no-unused-svelte-ignore": "off",
      // sets and maps are replaced as a whole; a version number tells the components
      "svelte/prefer-svelte-reactivity": "off",
    },
  },
);
