/** What is left of a driver's way to the customer. */
export type RemainingWay = {
  /** From the driver to the next stop and from there on, as the crow flies, in metres. */
  readonly legsMeters: readonly number[];
  /** How fast the driver has been of late, standing included, in metres a second; undefined when that is not known. */
  readonly speedMps: number | undefined;
};

/** Estimates in how many seconds a driver is at the customer's. Another may be given to `createApp`, such as one that knows roads and traffic. */
export type EstimateArrival = (way: RemainingWay) => number;

/** Roads are so much longer than the crow flies: 1.3 to 1.4 in towns. */
const DETOUR = 1.3;
/** 25 km/h: of a driver in a town of whom nothing else is known. */
const USUAL_MPS = 7;
/** A driver who stands at a light goes on; nobody drives through a town faster than 80 km/h all the way. */
const SLOWEST_MPS = 2.5;
const FASTEST_MPS = 22;
/** To park, fetch the goods and go on. */
const STOP_SECONDS = 180;

/** The distance over the recent speed, with a detour for roads and three minutes for each stop between. */
export const estimateArrival: EstimateArrival = ({ legsMeters, speedMps = USUAL_MPS }) => {
  const meters = legsMeters.reduce((sum, leg) => sum + leg, 0);
  const speed = Math.min(Math.max(speedMps, SLOWEST_MPS), FASTEST_MPS);
  return (DETOUR * meters) / speed + STOP_SECONDS * Math.max(0, legsMeters.length - 1);
};

/** Over which time the speed of a driver is averaged. */
const SPEED_SECONDS = 60;

/** A driver's recent speed after going so far in a time: the newer, the more it counts. */
export function recentSpeed(before: number | undefined, meters: number, seconds: number): number | undefined {
  if (seconds <= 0) return before;
  const speed = meters / seconds;
  if (before === undefined) return speed;
  const weight = 1 - Math.exp(-seconds / SPEED_SECONDS);
  return before + weight * (speed - before);
}
