import { describe, expect, it } from "vitest";
import { createLogger } from "../src/logger.ts";

/** What logging a line writes. */
function written(log: (logger: ReturnType<typeof createLogger>) => void, level = "debug"): string {
  const lines: string[] = [];
  log(createLogger(level, { write: (line) => lines.push(line) }));
  return lines.join("");
}

describe("the log", () => {
  it("blots out personal data and what may hold it, and shows the rest", () => {
    const line = written((logger) =>
      logger.info(
        {
          order_id: "order-1",
          position: 7,
          phone: "+4930123456",
          recipient: { name: "Ada" },
          request: { note: "third floor" },
          token: "eyJ",
        },
        "moved",
      ),
    );
    for (const personal of ["+4930123456", "Ada", "third floor", "eyJ"]) expect(line).not.toContain(personal);
    expect(JSON.parse(line)).toMatchObject({ level: "info", order_id: "order-1", position: 7, phone: "[redacted]", msg: "moved" });
  });

  it("shows an error and its causes, but nothing that a library hung on them", () => {
    const cause = Object.assign(new Error("duplicate key"), { code: 11000, document: { phone: "+4930123456" } });
    const error = Object.assign(new Error("cannot write", { cause }), { config: { headers: { authorization: "Bearer eyJ" } } });
    const line = written((logger) => logger.error({ err: error }, "failed"));
    for (const hidden of ["+4930123456", "Bearer eyJ"]) expect(line).not.toContain(hidden);
    expect(JSON.parse(line).err).toMatchObject({
      type: "Error",
      message: "cannot write",
      cause: { message: "duplicate key", code: 11000 },
    });
  });

  it("writes times in UTC, and only what is important enough", () => {
    expect(written((logger) => logger.debug("detail"), "info")).toBe("");
    expect(JSON.parse(written((logger) => logger.warn("late"))).time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });
});
