// The lines between a cause and its effects, drawn beside the timeline like the branches of a history.

const SVG = "http://www.w3.org/2000/svg";
const LANES = { order: 0, payment: 1, delivery: 2 };
const LANE_WIDTH = 22;
/** The middle of a row's first line: where its dot sits. */
const DOT_Y = 26;

/** Where a service's lane runs, in pixels from the graph's left edge. */
export function laneX(service) {
  return 12 + (LANES[service] ?? 0) * LANE_WIDTH;
}

export function createGraph(list) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "graph");
  svg.setAttribute("aria-hidden", "true");
  list.before(svg);
  const lines = new Map();
  const at = (row) => ({ x: laneX(row.dataset.service), y: row.offsetTop + DOT_Y });

  function draw({ path, cause, effect }) {
    const from = at(cause);
    const to = at(effect);
    const bend = Math.min(26, (to.y - from.y) / 2);
    // Down the cause's lane first, then over to the effect's: lines of one lane lie on one another.
    path.setAttribute("d", from.x === to.x
      ? `M${from.x} ${from.y}V${to.y}`
      : `M${from.x} ${from.y}V${to.y - 2 * bend}C${from.x} ${to.y - bend} ${to.x} ${to.y - bend} ${to.x} ${to.y}`);
  }

  const redraw = () => lines.forEach(draw);
  // A row that is opened moves all rows below it.
  new ResizeObserver(redraw).observe(list);

  return {
    /** Joins an effect's row to its cause's. */
    join(cause, effect) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", "line");
      path.setAttribute("pathLength", "1");
      path.dataset.service = cause.dataset.service;
      svg.append(path);
      const line = { path, cause, effect };
      lines.set(effect.dataset.id, line);
      draw(line);
    },

    /** Lights the line that leads to an event. */
    light(id, isLit) {
      const line = lines.get(id);
      line?.path.classList.toggle("lit", isLit);
      line?.cause.classList.toggle("is-cause", isLit);
      if (isLit && line) svg.append(line.path);
    },
  };
}
