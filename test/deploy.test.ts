import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { VARIABLES } from "../src/config.ts";

type Service = {
  readonly image: string;
  readonly build?: string;
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly restart?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly volumes?: readonly string[];
};
type Compose = { readonly services: Readonly<Record<string, Service>>; readonly volumes: Readonly<Record<string, unknown>> };

const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
const compose = parse(read("docker-compose.yml"), { merge: true }) as Compose;
const dockerfile = read("Dockerfile");
const instructions = dockerfile.replaceAll("\\\n", " ").split("\n");
const known = VARIABLES.map(({ name }) => name);
const ordertrail = compose.services["ordertrail"] as Service;

describe("docker-compose.yml", () => {
  it("sets only variables that the configuration knows", () => {
    const set = Object.keys(ordertrail.environment ?? {});
    expect(set).not.toEqual([]);
    expect(known).toEqual(expect.arrayContaining(set));
  });

  it("takes from its own environment only variables of the same name", () => {
    const passedOn = Object.entries(ordertrail.environment ?? {}).filter(([, value]) => value.startsWith("$"));
    for (const [name, value] of passedOn) expect(value).toMatch(new RegExp(`^\\$\\{${name}:-[^}]*\\}$`));
  });

  it("makes a replica set of the three members that the service connects to", () => {
    const members = Object.keys(compose.services).filter((name) => /^mongo-\d$/.test(name));
    expect(members).toEqual(["mongo-1", "mongo-2", "mongo-3"]);
    expect(ordertrail.environment?.["MONGODB_URL"]).toBe(`mongodb://${members.join(",")}/?replicaSet=ordertrail`);
    expect(Object.keys(compose.services["mongo-initiate"]?.depends_on ?? {})).toEqual(members);
    expect(ordertrail.depends_on?.["mongo-initiate"]).toEqual({ condition: "service_completed_successfully" });
  });

  it("makes a NATS cluster of the three servers that the service connects to, and keeps the mirror on all of them", () => {
    const servers = Object.keys(compose.services).filter((name) => /^nats-\d$/.test(name));
    expect(servers).toEqual(["nats-1", "nats-2", "nats-3"]);
    expect(ordertrail.environment?.["NATS_URL"]).toBe(`nats://${servers.map((name) => `${name}:4222`).join(",")}`);
    expect(ordertrail.environment?.["EVENT_STREAM_REPLICAS"]).toBe(String(servers.length));
    for (const server of servers) {
      expect(compose.services[server]?.command?.join(" ")).toContain(servers.map((name) => `nats://${name}:6222`).join(","));
      expect(ordertrail.depends_on?.[server]).toEqual({ condition: "service_healthy" });
    }
  });

  it("checks the health of every server that runs on", () => {
    const servers = Object.entries(compose.services).filter(([, service]) => service.restart === "unless-stopped" && !service.build);
    expect(servers).toHaveLength(7);
    for (const [name, { healthcheck }] of servers) expect(healthcheck?.test.length, name).toBeGreaterThan(1);
  });

  it("pins every image to a version, and keeps all data in volumes that it declares", () => {
    for (const { image, volumes = [] } of Object.values(compose.services)) {
      expect(image).toMatch(/:\d+\.\d+\.\d+(-\w+)?$/);
      for (const volume of volumes) expect(compose.volumes).toHaveProperty(volume.split(":")[0] ?? "");
    }
  });
});

describe("Dockerfile", () => {
  it("starts from a pinned Node of the version that the tests run on", () => {
    const { devDependencies } = JSON.parse(read("package.json")) as { devDependencies: Record<string, string> };
    const images = instructions.filter((line) => line.startsWith("FROM ")).map((line) => line.split(" ")[1]);
    expect(new Set(images)).toEqual(new Set([`node:${devDependencies["node"]}-bookworm-slim`]));
  });

  it("sets only variables that the configuration knows", () => {
    const set = instructions
      .filter((line) => line.startsWith("ENV "))
      .flatMap((line) => [...line.matchAll(/(\w+)=/g)].map(([, name]) => name));
    expect(set).not.toEqual([]);
    expect(known).toEqual(expect.arrayContaining(set));
  });

  it("runs as a user that is not root, without development dependencies, and has a health check", () => {
    expect(instructions.filter((line) => line.startsWith("USER "))).toEqual(["USER 1000:1000"]);
    expect(dockerfile).toContain("npm ci --omit=dev");
    const [, check = ""] = /^HEALTHCHECK .*\n +CMD \["node", "(.*)"\]$/m.exec(dockerfile) ?? [];
    expect(read(check)).toContain("isReady");
  });
});
