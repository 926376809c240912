import { describe, expect, it } from "vitest";
import { openScope, whenAborted } from "../../src/doors/deadline.ts";

const never = () => undefined;

describe("openScope()", () => {
  it("settles as the work does", async () => {
    using scope = openScope(never, undefined, true);
    expect(await scope.race(Promise.resolve(1))).toBe(1);
    await expect(scope.race(Promise.reject(new Error("the work's own")))).rejects.toThrow("the work's own");
  });

  it("ends work that never ends, at its deadline", async () => {
    using scope = openScope(never, 1, true);
    await expect(scope.race(new Promise(never))).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    expect(scope.signal.reason).toMatchObject({ reason: "DEADLINE_EXCEEDED" });
  });

  it("says of a command, and of no read, that it may have been carried out", async () => {
    const messageOf = async (isCommand: boolean) => {
      using scope = openScope(never, 1, isCommand);
      return await scope.race(new Promise<never>(never)).catch((refusal: Error) => refusal.message);
    };
    expect(await messageOf(true)).toContain("request_id");
    expect(await messageOf(false)).not.toContain("request_id");
  });

  it("ends with the reason of its door", async () => {
    const door = new AbortController();
    using scope = openScope(whenAborted(door.signal), undefined, true);
    const racing = scope.race(new Promise(never));
    door.abort(new Error("the door's own"));
    await expect(racing).rejects.toThrow("the door's own");
  });

  it("lets no work succeed that begins after its end", async () => {
    const door = new AbortController();
    door.abort(new Error("the door's own"));
    using scope = openScope(whenAborted(door.signal), undefined, true);
    await expect(scope.race(Promise.resolve("complete"))).rejects.toThrow("the door's own");
  });

  it("leaves its signal alone once it is over", () => {
    const door = new AbortController();
    const scope = openScope(whenAborted(door.signal), undefined, true);
    scope[Symbol.dispose]();
    door.abort();
    expect(scope.signal.aborted).toBe(false);
  });
});
