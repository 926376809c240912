import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** The types of HTTP/2 frames (RFC 9113, section 6). */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const END_STREAM = 0x1;
export const END_HEADERS = 0x4;
export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export type Frame = { readonly type: number; readonly flags: number; readonly streamId: number; readonly payload: Buffer };

/** A connection on which a test writes HTTP/2 byte by byte. */
export type RawHttp2 = Disposable & {
  readonly socket: Socket;
  send(...frames: Buffer[]): void;
  /** All that has come so far. */
  frames(): Frame[];
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
};

/** Connects, and sends the preface with empty settings. With a CA, it connects by TLS. */
export async function openRawHttp2(address: string, ca?: string): Promise<RawHttp2> {
  const [host = "", port] = address.split(":");
  const socket = ca ? connectTls({ host, port: Number(port), ca, ALPNProtocols: ["h2"] }) : connect(Number(port), host);
  await once(socket, ca ? "secureConnect" : "connect");
  let received = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    received = Buffer.concat([received, chunk]);
  });
  // Writing to what the server has closed is what some tests are about.
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
  return {
    socket,
    send: (...frames) => void socket.write(Buffer.concat(frames)),
    frames: () => framesIn(received),
    closed,
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

export function frame(type: number, flags: number, streamId: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Headers in HPACK, each as a literal that is not indexed (RFC 7541, section 6.2.2). */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(Object.entries(headers).map(([name, value]) => Buffer.concat([Buffer.from([0]), literal(name), literal(value)])));
}

/** A request of these headers, as one frame. */
export function requestFrame(streamId: number, headers: Readonly<Record<string, string>>, flags: number = END_HEADERS): Buffer {
  return frame(FRAME.headers, flags, streamId, headerBlock(headers));
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  const length: number[] = [];
  if (bytes.length < 127) length.push(bytes.length);
  else {
    length.push(127);
    let rest = bytes.length - 127;
    for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 9 <= bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    if (at + 9 + length > bytes.length) break;
    frames.push({
      type: bytes.readUInt8(at + 3),
      flags: bytes.readUInt8(at + 4),
      streamId: bytes.readUInt32BE(at + 5),
      payload: bytes.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return frames;
}
