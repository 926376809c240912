import { execFileSync } from "node:child_process";
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/**
 * Generates src/gen from the protos; with --check, fails when src/gen is not what would be generated.
 * The protos of others that ours import are put into .cache/protos first.
 */
const ROOT = join(import.meta.dirname, "..");
const PROTOS = join(ROOT, ".cache", "protos");
const GEN = join("src", "gen");

const GOOGLE_PROTOS = join(ROOT, "node_modules", "google-gax", "build", "protos");
const FROM_GOOGLE = ["google/api/annotations.proto", "google/api/http.proto", "google/rpc/error_details.proto", "google/rpc/status.proto"];
/** Described by reflection, for clients of the health service. */
const HEALTH_PROTO = join(ROOT, "node_modules", "grpc-health-check", "proto", "health", "v1", "health.proto");

/** The source distribution on PyPI whose schema is the one that npm's @bufbuild/protovalidate 1.3.0 was made of. */
const PROTOVALIDATE = {
  name: "protovalidate-2.1.0",
  requirement: "protovalidate==2.1.0 --hash=sha256:d2f66bd8c7e8c4929116ad598348e83d90bd718f0387f2307b34f83b1740f318",
  proto: "buf/validate/validate.proto",
};

function fetchProtos(): void {
  for (const proto of FROM_GOOGLE) {
    mkdirSync(dirname(join(PROTOS, proto)), { recursive: true });
    cpSync(join(GOOGLE_PROTOS, proto), join(PROTOS, proto));
  }
  mkdirSync(join(PROTOS, "grpc/health/v1"), { recursive: true });
  cpSync(HEALTH_PROTO, join(PROTOS, "grpc/health/v1/health.proto"));
  const mark = join(PROTOS, `.${PROTOVALIDATE.name}`);
  if (!existsSync(mark)) {
    fetchProtovalidate();
    writeFileSync(mark, "");
  }
}

function fetchProtovalidate(): void {
  process.stderr.write(`generate: fetching ${PROTOVALIDATE.proto} from PyPI\n`);
  const scratch = mkdtempSync(join(tmpdir(), "ordertrail-protos-"));
  try {
    const requirements = join(scratch, "requirements.txt");
    writeFileSync(requirements, PROTOVALIDATE.requirement);
    const pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-binary=protovalidate"];
    run("python3", ...pip, "--require-hashes", "--requirement", requirements, "--dest", scratch);
    const member = `${PROTOVALIDATE.name}/proto/${PROTOVALIDATE.proto}`;
    run("tar", "-xzf", join(scratch, `${PROTOVALIDATE.name}.tar.gz`), "-C", scratch, member);
    const target = join(PROTOS, PROTOVALIDATE.proto);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(join(scratch, member), `${target}.new`);
    renameSync(`${target}.new`, target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The names of the files in which two folders differ, or which only one of them has. */
function differences(left: string, right: string): string[] {
  const filesIn = (folder: string) => globSync("**/*.*", { cwd: folder });
  const names = new Set([...filesIn(left), ...filesIn(right)]);
  const read = (folder: string, name: string) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8") : undefined);
  return [...names].filter((name) => read(left, name) !== read(right, name)).sort();
}

function check(): void {
  const scratch = mkdtempSync(join(tmpdir(), "ordertrail-gen-"));
  try {
    run("buf", "generate", "--output", scratch);
    const stale = differences(join(scratch, GEN), join(ROOT, GEN));
    if (stale.length > 0) {
      process.stderr.write(`generate: src/gen is not current (npm run generate):\n  ${stale.join("\n  ")}\n`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
}

fetchProtos();
if (process.argv.includes("--check")) check();
else run("buf", "generate");
