// Reads an AsyncAPI document from standard input. Fails, and prints what is wrong, if it is not valid.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
// The severities are those of Spectral: 0 and 1 are errors and warnings, 2 and 3 are advice.
const wrong = diagnostics.filter((found) => found.severity < 2);
for (const found of wrong) {
  console.error(`${found.path.join(".")}: ${found.message} (${found.code})`);
}
process.exit(document && wrong.length === 0 ? 0 : 1);
