// Checks custom resources: `node check.mjs NODE_MODULES` reads a JSON list of objects and prints a list of their problems.
// The validators know patterns, bounds and what is required; the compiler knows which fields there are.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = process.argv[2];
const ts = createRequire(join(modules, "none.js"))("typescript");

const PACKAGES = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

function moduleOf({ apiVersion, kind }) {
  const folder = PACKAGES[apiVersion.split("/")[0]];
  if (!folder) throw new Error(`no package has a schema of ${apiVersion} ${kind}`);
  return `@kubernetes-models/${folder}/${apiVersion}/${kind}`;
}

async function validated(object) {
  const loaded = await import(pathToFileURL(join(modules, `${moduleOf(object)}.js`)));
  try {
    new loaded[object.kind](object).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

// Each object as a literal of its type: the compiler refuses what the type has no field for.
function typed(objects) {
  const file = join(modules, "..", "objects.ts");
  const lines = objects.flatMap((object, number) => [
    `import { I${object.kind} as T${number} } from "${moduleOf(object)}";`,
    `export const o${number}: T${number} = ${JSON.stringify(object)};`,
  ]);
  const options = {
    strict: true, noEmit: true, skipLibCheck: true, types: [],
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  const text = lines.join("\n");
  host.fileExists = (path) => path === file || fileExists(path);
  host.readFile = (path) => (path === file ? text : readFile(path));
  host.getSourceFile = (path, target) =>
    path === file ? ts.createSourceFile(path, text, target) : getSourceFile(path, target);
  const problems = objects.map(() => []);
  for (const found of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
    const message = ts.flattenDiagnosticMessageText(found.messageText, " ");
    if (found.file?.fileName !== file) throw new Error(message);
    problems[Math.floor(found.file.getLineAndCharacterOfPosition(found.start).line / 2)].push(message);
  }
  return problems;
}

let input = "";
for await (const part of process.stdin) input += part;
const objects = JSON.parse(input);
const fromTypes = typed(objects);
const fromValidators = await Promise.all(objects.map(validated));
console.log(JSON.stringify(objects.map((_, number) => [...fromTypes[number], ...fromValidators[number]])));
