// Draws the diagrams in the page's own colours, again when the reader's theme changes. Where it can't, or the window is
// too narrow for them, the tables say the same.
(function () {
  "use strict";
  var narrow = !window.Plotly || window.matchMedia("(max-width: 680px)").matches;
  function draw() {
    var css = getComputedStyle(document.documentElement);
    var colour = function (name) { return css.getPropertyValue("--" + name).trim(); };
    document.querySelectorAll("[data-chart]").forEach(function (box) {
      var figure = JSON.parse(document.getElementById(box.dataset.chart).textContent);
      var trace = figure.data[0];
      trace.node.color = trace.node.customdata.map(function (tone) { return colour("tone-" + tone); });
      trace.link.color = trace.link.customdata.map(function (tone) { return colour("flow-" + tone); });
      trace.textfont = { color: colour("ink"), size: 13, family: css.fontFamily, shadow: "auto" };
      figure.layout.paper_bgcolor = colour("card");
      figure.layout.font = { family: css.fontFamily };
      figure.layout.hoverlabel = {
        bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), family: css.fontFamily }
      };
      box.hidden = false;
      window.Plotly.react(box, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    });
  }
  if (narrow) {
    document.querySelectorAll("details[data-of]").forEach(function (table) { table.open = true; });
  } else {
    draw();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
