package bake

import (
	"errors"
	"maps"
	"slices"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

var (
	_ hclparser.WithEvalContexts = &Target{}
	_ hclparser.WithGetName      = &Target{}
	_ hclparser.WithEvalContexts = &Group{}
	_ hclparser.WithGetName      = &Group{}
)

var errGroupMatrix = errors.New("a group can't have a matrix or a name")

// GetEvalContexts returns one context: a group has no matrix.
func (*Group) GetEvalContexts(ectx *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	attrs, err := attributes(block)
	if err == nil && attrs["matrix"] != nil {
		err = errGroupMatrix
	}
	return []*hcl.EvalContext{ectx}, err
}

// GetName returns the group's label.
func (*Group) GetName(_ *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) (string, error) {
	attrs, err := attributes(block)
	if err == nil && len(attrs) > 0 {
		err = errGroupMatrix
	}
	return block.Labels[0], err
}

// GetEvalContexts returns a context for each combination of the matrix' values.
func (*Target) GetEvalContexts(ectx *hcl.EvalContext, block *hcl.Block, loadDeps func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	attrs, err := attributes(block)
	if err != nil || attrs["matrix"] == nil {
		return []*hcl.EvalContext{ectx}, err
	}
	value, err := evaluate(attrs["matrix"].Expr, ectx, loadDeps)
	if err != nil {
		return nil, err
	}
	if value.IsNull() || !value.Type().IsMapType() && !value.Type().IsObjectType() {
		return nil, errors.New("matrix must be a map")
	}
	matrix := value.AsValueMap()
	combinations := []map[string]cty.Value{{}}
	for _, key := range slices.Sorted(maps.Keys(matrix)) {
		if !matrix[key].CanIterateElements() {
			return nil, errors.New("matrix values must be a list")
		}
		var wider []map[string]cty.Value
		for _, c := range combinations {
			for _, v := range matrix[key].AsValueSlice() {
				wider = append(wider, with(c, map[string]cty.Value{key: v}))
			}
		}
		combinations = wider
	}
	var contexts []*hcl.EvalContext
	for _, c := range combinations {
		child := ectx.NewChild()
		child.Variables = c
		contexts = append(contexts, child)
	}
	return contexts, nil
}

// GetName returns the label, or what the attribute name says for one combination of a matrix.
func (*Target) GetName(ectx *hcl.EvalContext, block *hcl.Block, loadDeps func(hcl.Expression) hcl.Diagnostics) (string, error) {
	attrs, err := attributes(block)
	if err != nil || attrs["name"] == nil {
		return block.Labels[0], err
	}
	if attrs["matrix"] == nil {
		return "", errors.New("name requires matrix")
	}
	value, err := evaluate(attrs["name"].Expr, ectx, loadDeps)
	if err != nil {
		return "", err
	}
	if value, err = convert.Convert(value, cty.String); err != nil {
		return "", err
	}
	if value.IsNull() || !value.IsKnown() {
		return "", errors.New("name has no value")
	}
	return value.AsString(), nil
}

func attributes(block *hcl.Block) (hcl.Attributes, error) {
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "name"}, {Name: "matrix"}},
	})
	if diags.HasErrors() {
		return nil, diags
	}
	return content.Attributes, nil
}

func evaluate(expr hcl.Expression, ectx *hcl.EvalContext, loadDeps func(hcl.Expression) hcl.Diagnostics) (cty.Value, error) {
	if diags := loadDeps(expr); diags.HasErrors() {
		return cty.NilVal, diags
	}
	value, diags := expr.Value(ectx)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return value, nil
}
